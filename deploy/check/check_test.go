// Package check reads the files of deploy/ with the libraries of those who will read them: compose-go is what docker compose is
// built on, k8s.io/api has the types that an API server decodes into. It is a module of its own, so that wxproxy depends on neither.
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

// What docker compose config would say: nothing.
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
			t.Errorf("%s: %v; whoever can inspect a container reads its environment", name, s.Environment)
		}
		if s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has more rights than it needs", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" && !(name == "balancer" && p.Published == "443") {
				t.Errorf("%s: port %s is open to all", name, p.Published)
			}
		}
		if _, near := s.Networks["store"]; near && name != "redis" && !strings.HasPrefix(name, "wxproxy-") {
			t.Errorf("%s reaches the Redis", name)
		}
		if strings.HasPrefix(name, "wxproxy-") {
			replicas++
			if !s.ReadOnly || s.StopGracePeriod == nil || s.StopGracePeriod.String() < "30s" {
				t.Errorf("%s: %v %v", name, s.ReadOnly, s.StopGracePeriod)
			}
		}
		for _, c := range s.Configs {
			if file := project.Configs[c.Source].File; !exists(file) {
				t.Errorf("%s: %s does not exist", name, file)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := project.Secrets[secret.Source]; !ok {
				t.Errorf("%s: no secret %s", name, secret.Source)
			}
		}
	}
	if replicas != 3 {
		t.Errorf("%d replicas", replicas)
	}
	if !project.Networks["store"].Internal {
		t.Error("the Redis reaches the internet")
	}
	// Each secret that a configuration names is mounted, and made or asked for by the script.
	script := read(t, "../compose/secrets.sh")
	config := read(t, "../compose/config.toml") + read(t, "../compose/haproxy.cfg") + read(t, "../compose/redis.conf") + read(t, "../compose/prometheus.yml")
	for _, m := range regexp.MustCompile(`/run/secrets/([a-z_.]+)`).FindAllStringSubmatch(config, -1) {
		if _, ok := project.Secrets[m[1]]; !ok || !strings.Contains(script, m[1]) {
			t.Errorf("no secret %s", m[1])
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

// manifests are the objects of deploy/kubernetes, each decoded into the type that it says it is; an unknown field is an error.
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
		t.Errorf("%d files, of which kustomization.yaml names %v", len(files), list.Resources)
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
				continue // comments
			}
			into, ok := map[string]any{
				"v1 Namespace": &corev1.Namespace{}, "v1 ConfigMap": &corev1.ConfigMap{}, "v1 Service": &corev1.Service{},
				"apps/v1 Deployment": &appsv1.Deployment{}, "policy/v1 PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
				"networking.k8s.io/v1 NetworkPolicy": &networkingv1.NetworkPolicy{}, "networking.k8s.io/v1 Ingress": &networkingv1.Ingress{},
			}[kind.APIVersion+" "+kind.Kind]
			if !ok {
				t.Fatalf("%s: %s %s is not expected here", name, kind.APIVersion, kind.Kind)
			}
			if err := strict.UnmarshalStrict(doc, into); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			all = append(all, into)
		}
	}
	return all
}

// The manifests are what the API server takes, and fit each other.
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
		t.Fatal("something is missing")
	}

	pod := deployment.Spec.Template.Spec
	ours := labels.Set(deployment.Spec.Template.Labels)
	selects := func(what string, s *metav1.LabelSelector) {
		t.Helper()
		if selector, err := metav1.LabelSelectorAsSelector(s); err != nil || selector.Empty() || !selector.Matches(ours) {
			t.Errorf("%s does not select the pods: %v", what, err)
		}
	}
	selects("the Deployment", deployment.Spec.Selector)
	selects("the PodDisruptionBudget", budget.Spec.Selector)
	if *deployment.Spec.Replicas < 2 || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Error("a node cannot be emptied without an interruption, or at all")
	}

	if len(pod.Containers) != 1 {
		t.Fatal(len(pod.Containers))
	}
	c := pod.Containers[0]
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if s := c.SecurityContext; *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !*pod.SecurityContext.RunAsNonRoot ||
		pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || *pod.AutomountServiceAccountToken {
		t.Error("the pod has more rights than the namespace allows, or than it needs")
	}
	if len(c.Env) > 0 || len(c.EnvFrom) > 0 {
		t.Error("secrets belong into files")
	}
	for name, probe := range map[string]*corev1.Probe{"readiness": c.ReadinessProbe, "liveness": c.LivenessProbe, "startup": c.StartupProbe} {
		if probe.HTTPGet.Path != "/healthz" || ports[probe.HTTPGet.Port.StrVal] != 8082 {
			t.Errorf("%s: %v; what ails the Redis ails all pods, and must take none away", name, probe.HTTPGet)
		}
	}
	if wait := c.Lifecycle.PreStop.Sleep.Seconds; *pod.TerminationGracePeriodSeconds < wait+30 {
		t.Error("calls under way are cut off")
	}

	// The three zones: each Service leads to one listener, and each policy opens one.
	listener := func(p intstr.IntOrString) int32 { return ports[p.StrVal] }
	for name, want := range map[string]int32{"wxproxy": 8080, "wxproxy-callback": 8081, "wxproxy-admin": 8082} {
		s := services[name]
		if s == nil || len(s.Spec.Ports) != 1 || listener(s.Spec.Ports[0].TargetPort) != want || !labels.SelectorFromSet(s.Spec.Selector).Matches(ours) || s.Spec.Type != "" {
			t.Errorf("Service %s: %+v", name, s)
		}
	}
	if len(services) != 3 {
		t.Errorf("%d Services", len(services))
	}
	for _, rule := range ingress.Spec.Rules {
		for _, path := range rule.HTTP.Paths {
			if b := path.Backend.Service; b.Name != "wxproxy-callback" || b.Port.Name != services[b.Name].Spec.Ports[0].Name {
				t.Errorf("the internet gets to %+v", b)
			}
		}
	}
	if len(ingress.Spec.TLS) == 0 {
		t.Error("no TLS")
	}
	deny, opened := false, []int32{}
	for _, p := range policies {
		if len(p.Spec.PodSelector.MatchLabels) == 0 && len(p.Spec.Ingress) == 0 && len(p.Spec.Egress) == 0 && len(p.Spec.PolicyTypes) == 2 {
			deny = true
			continue
		}
		selects(p.Name, &p.Spec.PodSelector)
		for _, rule := range p.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) != 1 {
				t.Errorf("%s lets everybody in, or to everything", p.Name)
				continue
			}
			opened = append(opened, listener(*rule.Ports[0].Port))
		}
		for _, rule := range p.Spec.Egress {
			if len(rule.To) == 0 {
				t.Errorf("%s lets out to everywhere", p.Name)
			}
		}
	}
	slices.Sort(opened)
	if !deny || !slices.Equal(opened, []int32{8080, 8081, 8082}) {
		t.Errorf("default deny %v, opened %v", deny, opened)
	}

	// Secrets come from the Secret, which is in no file here, and every file that the configuration names is one that README.md makes.
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range pod.Volumes {
		switch {
		case v.ConfigMap != nil && (v.ConfigMap.Name != config.Name || mounts[v.Name] != "/etc/wxproxy"), v.Secret != nil && (v.Secret.SecretName != "wxproxy" || mounts[v.Name] != "/run/secrets"):
			t.Errorf("%+v at %s", v, mounts[v.Name])
		}
	}
	readme := read(t, "../README.md")
	for _, line := range strings.Split(config.Data["config.toml"], "\n") {
		key, value, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !regexp.MustCompile(`secret|token|_key$|^key$|password|url`).MatchString(key) || key == "key_sha256" || key == "public_url" || strings.HasPrefix(key, "#") {
			continue
		}
		m := regexp.MustCompile(`^ *"\$\{file:/run/secrets/([a-z_]+)\}" *(#.*)?$`).FindStringSubmatch(value)
		if m == nil || !strings.Contains(readme, "--from-file="+m[1]) && !strings.Contains(readme, "--from-literal="+m[1]+"=") {
			t.Errorf("%s: not from the Secret, or README.md does not say how it gets there", line)
		}
	}
}
