// Package check tests the files of deploy/ with the libraries of their readers:
// docker compose uses compose-go, and an API server decodes into the types of
// k8s.io/api. It is a module of its own, so that wxproxy depends on neither.
package check

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// TestCompose checks that docker compose accepts the project, and that its
// containers have no more rights than they need.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../compose/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	replicas := 0
	for name, s := range project.Services {
		if len(s.Environment) > 0 {
			t.Errorf("%s: got environment %v, want none, because docker inspect shows it", name, s.Environment)
		}
		if s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: got more privileges than it needs", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" && !(name == "balancer" && p.Published == "443") {
				t.Errorf("%s: got port %s on all addresses, want loopback", name, p.Published)
			}
		}
		if _, ok := s.Networks["store"]; ok && name != "redis" && !strings.HasPrefix(name, "wxproxy-") {
			t.Errorf("%s: got access to the Redis, want none", name)
		}
		if strings.HasPrefix(name, "wxproxy-") {
			replicas++
			if !s.ReadOnly || s.StopGracePeriod == nil || s.StopGracePeriod.String() < "30s" {
				t.Errorf("%s: got read_only %v and stop_grace_period %v, want true and at least 30s", name, s.ReadOnly, s.StopGracePeriod)
			}
		}
		for _, c := range s.Configs {
			if file := project.Configs[c.Source].File; !exists(file) {
				t.Errorf("%s: got config file %s, which does not exist", name, file)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := project.Secrets[secret.Source]; !ok {
				t.Errorf("%s: got secret %s, which is not defined", name, secret.Source)
			}
		}
	}
	if replicas != 3 {
		t.Errorf("replicas: got %d, want 3", replicas)
	}
	if !project.Networks["store"].Internal {
		t.Error("network store: got access to the internet, want internal")
	}
	// Each secret that a configuration names is mounted, and the script creates
	// it or asks for it.
	script := read(t, "../compose/secrets.sh")
	config := read(t, "../compose/config.toml") + read(t, "../compose/haproxy.cfg") + read(t,
		"../compose/redis.conf") + read(t, "../compose/prometheus.yml")
	for _, m := range regexp.MustCompile(`/run/secrets/([a-z_.]+)`).FindAllStringSubmatch(config, -1) {
		if _, ok := project.Secrets[m[1]]; !ok || !strings.Contains(script, m[1]) {
			t.Errorf("secret %s: want it in compose.yaml and in secrets.sh", m[1])
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// manifests returns the objects of deploy/kubernetes, each decoded into its
// type. An unknown field is an error.
func manifests(t *testing.T) (all []any) {
	t.Helper()
	var list struct{ Resources []string }
	if err := strict.Unmarshal([]byte(read(t, "../kubernetes/kustomization.yaml")), &list); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(list.Resources)+1 {
		t.Errorf("files: got %d, but kustomization.yaml lists %v", len(files), list.Resources)
	}
	for _, name := range list.Resources {
		documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(read(t, "../kubernetes/"+name))))
		for {
			doc, err := documents.Read()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var kind metav1.TypeMeta
			if err := strict.Unmarshal(doc, &kind); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if kind.Kind == "" {
				continue // only comments
			}
			into, ok := map[string]any{
				"v1 Namespace":                       &corev1.Namespace{},
				"v1 ConfigMap":                       &corev1.ConfigMap{},
				"v1 Service":                         &corev1.Service{},
				"apps/v1 Deployment":                 &appsv1.Deployment{},
				"policy/v1 PodDisruptionBudget":      &policyv1.PodDisruptionBudget{},
				"networking.k8s.io/v1 NetworkPolicy": &networkingv1.NetworkPolicy{},
				"networking.k8s.io/v1 Ingress":       &networkingv1.Ingress{},
			}[kind.APIVersion+" "+kind.Kind]
			if !ok {
				t.Fatalf("%s: got unexpected %s %s", name, kind.APIVersion, kind.Kind)
			}
			if err := strict.UnmarshalStrict(doc, into); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			all = append(all, into)
		}
	}
	return all
}

// TestKubernetes checks that the API server accepts the manifests, and that
// they match each other.
func TestKubernetes(t *testing.T) {
	var deployment *appsv1.Deployment
	var config *corev1.ConfigMap
	var budget *policyv1.PodDisruptionBudget
	services := map[string]*corev1.Service{}
	var policies []*networkingv1.NetworkPolicy
	var ingress *networkingv1.Ingress
	for _, m := range manifests(t) {
		switch m := m.(type) {
		case *appsv1.Deployment:
			deployment = m
		case *corev1.ConfigMap:
			config = m
		case *policyv1.PodDisruptionBudget:
			budget = m
		case *corev1.Service:
			services[m.Name] = m
		case *networkingv1.NetworkPolicy:
			policies = append(policies, m)
		case *networkingv1.Ingress:
			ingress = m
		}
	}
	if deployment == nil || config == nil || budget == nil || ingress == nil {
		t.Fatal("manifests: want a Deployment, a ConfigMap, a PodDisruptionBudget and an Ingress")
	}

	pod := deployment.Spec.Template.Spec
	podLabels := labels.Set(deployment.Spec.Template.Labels)
	selects := func(what string, s *metav1.LabelSelector) {
		t.Helper()
		if selector, err := metav1.LabelSelectorAsSelector(s); err != nil || selector.Empty() || !selector.Matches(podLabels) {
			t.Errorf("%s: got a selector that does not match the pods: %v", what, err)
		}
	}
	selects("the Deployment", deployment.Spec.Selector)
	selects("the PodDisruptionBudget", budget.Spec.Selector)
	if *deployment.Spec.Replicas < 2 || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Error("replicas and PodDisruptionBudget: want a node to be drained without interruption")
	}

	if len(pod.Containers) != 1 {
		t.Fatalf("containers: got %d, want 1", len(pod.Containers))
	}
	c := pod.Containers[0]
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if s := c.SecurityContext; *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !*pod.SecurityContext.RunAsNonRoot ||
		pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*pod.AutomountServiceAccountToken {
		t.Error("pod: got more privileges than it needs, or than the namespace allows")
	}
	if len(c.Env) > 0 || len(c.EnvFrom) > 0 {
		t.Errorf("environment: got %v, want none, secrets are files", c.Env)
	}
	for name, probe := range map[string]*corev1.Probe{"readiness": c.ReadinessProbe,
		"liveness": c.LivenessProbe, "startup": c.StartupProbe} {
		if probe.HTTPGet.Path != "/healthz" || ports[probe.HTTPGet.Port.StrVal] != 8082 {
			t.Errorf("%s probe: got %v, want /healthz, because /readyz fails on all pods together",
				name, probe.HTTPGet)
		}
	}
	if wait := c.Lifecycle.PreStop.Sleep.Seconds; *pod.TerminationGracePeriodSeconds < wait+30 {
		t.Error("terminationGracePeriodSeconds: want time for requests in flight")
	}

	// The three zones: each Service belongs to one listener, and each policy
	// opens one.
	listener := func(p intstr.IntOrString) int32 { return ports[p.StrVal] }
	for name, want := range map[string]int32{"wxproxy": 8080, "wxproxy-callback": 8081, "wxproxy-admin": 8082} {
		s := services[name]
		if s == nil || len(s.Spec.Ports) != 1 || listener(s.Spec.Ports[0].TargetPort) != want ||
			!labels.SelectorFromSet(s.Spec.Selector).Matches(podLabels) || s.Spec.Type != "" {
			t.Errorf("Service %s: got %+v, want one port that leads to %d", name, s, want)
		}
	}
	if len(services) != 3 {
		t.Errorf("Services: got %d, want 3", len(services))
	}
	for _, rule := range ingress.Spec.Rules {
		for _, path := range rule.HTTP.Paths {
			if b := path.Backend.Service; b.Name != "wxproxy-callback" || b.Port.Name != services[b.Name].Spec.Ports[0].Name {
				t.Errorf("Ingress: got backend %+v, want wxproxy-callback", b)
			}
		}
	}
	if len(ingress.Spec.TLS) == 0 {
		t.Error("Ingress: got no TLS")
	}
	deny, opened := false, []int32{}
	for _, p := range policies {
		if len(p.Spec.PodSelector.MatchLabels) == 0 && len(p.Spec.Ingress) == 0 &&
			len(p.Spec.Egress) == 0 && len(p.Spec.PolicyTypes) == 2 {
			deny = true
			continue
		}
		selects(p.Name, &p.Spec.PodSelector)
		for _, rule := range p.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) != 1 {
				t.Errorf("%s: got ingress from everywhere or to all ports", p.Name)
				continue
			}
			opened = append(opened, listener(*rule.Ports[0].Port))
		}
		for _, rule := range p.Spec.Egress {
			if len(rule.To) == 0 {
				t.Errorf("%s: got egress to everywhere", p.Name)
			}
		}
	}
	slices.Sort(opened)
	if !deny || !slices.Equal(opened, []int32{8080, 8081, 8082}) {
		t.Errorf("policies: got default deny %v and open ports %v, want true and the three listeners", deny, opened)
	}

	// Secrets come from the Secret, which is in no file here. README.md creates
	// every file that the configuration names.
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range pod.Volumes {
		switch {
		case v.ConfigMap != nil &&
			(v.ConfigMap.Name != config.Name || mounts[v.Name] != "/etc/wxproxy"),
			v.Secret != nil && (v.Secret.SecretName != "wxproxy" || mounts[v.Name] != "/run/secrets"):
			t.Errorf("volume %+v: got mount path %s", v, mounts[v.Name])
		}
	}
	readme := read(t, "../README.md")
	for _, line := range strings.Split(config.Data["config.toml"], "\n") {
		key, value, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !regexp.MustCompile(`secret|token|_key$|^key$|password|url`).MatchString(key) ||
			key == "key_sha256" || key == "public_url" || strings.HasPrefix(key, "#") {
			continue
		}
		m := regexp.MustCompile(`^ *"\$\{file:/run/secrets/([a-z_]+)\}" *(#.*)?$`).FindStringSubmatch(value)
		if m == nil || !strings.Contains(readme, "--from-file="+m[1]) &&
			!strings.Contains(readme, "--from-literal="+m[1]+"=") {
			t.Errorf("%s: want a file of the Secret that README.md creates", line)
		}
	}
}
