package conformance_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
	"wxproxy/wechat"
)

const (
	// deliverySecret signs deliveries, and deliveryToken is the token of plain
	// mode.
	deliverySecret = "secret-of-deliveries-0123456789abcdef"
	deliveryToken  = "tokenOfPlainMode"

	sender = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
)

// services are the services of docs/messages.md, and how to start them on a
// port.
var services = map[string]func(t *testing.T, port string) []string{
	"Python": func(t *testing.T, port string) []string {
		return []string{"python3", "service.py", port}
	},
	"Node": func(t *testing.T, port string) []string {
		return []string{"node", "service.js", port}
	},
	"PHP": func(t *testing.T, port string) []string {
		return []string{"php", "-S", "127.0.0.1:" + port, "service.php"}
	},
	"Go": func(t *testing.T, port string) []string {
		program := filepath.Join(t.TempDir(), "service")
		build := exec.Command("go", "build", "-o", program, "service.go")
		build.Dir = "services"
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building the service: %v: %s", err, out)
		}
		return []string{program, port}
	},
	"Java": func(t *testing.T, port string) []string {
		return []string{"java", "Service.java", port}
	},
}

// process is a service that runs.
type process struct {
	url string
	out proctest.Output
}

// startService starts a program, which listens on a port, and waits until it
// does.
func startService(
	t *testing.T, dir string, command func(port string) []string, env ...string,
) *process {
	t.Helper()
	_, port, err := net.SplitHostPort(proctest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{url: "http://127.0.0.1:" + port + "/wechat"}
	args := command(port)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"PORT=" + port}, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("output of the service:\n%s", &p.out)
		}
	})
	proctest.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return p
}

// textMessage returns a message of a user as WeChat writes it.
func textMessage(id int, text string) string {
	return fmt.Sprintf("<xml><ToUserName><![CDATA[gh_0123456789ab]]></ToUserName>\n"+
		"<FromUserName><![CDATA[%s]]></FromUserName>\n<CreateTime>%d</CreateTime>\n"+
		"<MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[%s]]></Content>\n"+
		"<MsgId>%d</MsgId>\n</xml>", sender, time.Now().Unix(), text, id)
}

// passiveReply is a decrypted reply.
type passiveReply struct {
	ToUserName, FromUserName, MsgType, Content string
}

// push pushes a document to the account and returns the reply, as WeChat reads
// it.
func (w *env) push(t *testing.T, doc string) (r passiveReply) {
	t.Helper()
	body, err := w.wx.PushXML(context.Background(), "/"+appid+"/events", doc)
	if err != nil {
		t.Fatalf("pushing a message: %v", err)
	}
	var sealed struct{ Encrypt, MsgSignature, TimeStamp, Nonce string }
	if err := xml.Unmarshal(body, &sealed); err != nil {
		t.Fatalf("got reply %q: %v", body, err)
	}
	crypt, err := wechat.NewCrypt(wechat.NewSecret(sandbox.DefaultMessageToken),
		wechat.NewSecret(sandbox.DefaultEncodingAESKey), sandbox.DefaultComponentAppID)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := crypt.Open(sealed.MsgSignature, sealed.TimeStamp, sealed.Nonce, sealed.Encrypt)
	if err != nil {
		t.Fatalf("got reply %q, which cannot be decrypted: %v", body, err)
	}
	if err := xml.Unmarshal(reply, &r); err != nil {
		t.Fatalf("got reply %q: %v", reply, err)
	}
	return r
}

// hostileMessages are texts that a user can type.
var hostileMessages = []string{
	"hello", "你好 😀 & <b>", "a]]>b", "<![CDATA[a]]>",
	"]]></Content><FromUserName><![CDATA[forged]]></FromUserName><Content><![CDATA[",
	"]]></Content></xml>", "&nothing; </Content>", strings.Repeat("]]></Content>", 500),
}

// TestServices runs the services of docs/messages.md. Each reads what users
// type, whatever it is, replies, handles a message once that WeChat repeats,
// and rejects what wxproxy has not signed, or has signed long ago.
func TestServices(t *testing.T) {
	if !enabled {
		t.Skip("run make conformance, which installs the runtimes")
	}
	for name, command := range services {
		t.Run(name, func(t *testing.T) {
			p := startService(t, "services", func(port string) []string { return command(t, port) },
				"SECRET="+deliverySecret, "DATA="+t.TempDir())
			w := newEnv(t, false, fmt.Sprintf(
				"\n[[forward]]\nappids = [%q]\nevents = [\"*\"]\nurl = %q\nsecret = %q\n",
				appid, p.url, deliverySecret))
			for i, text := range hostileMessages {
				doc := textMessage(1000+i, text)
				for range 2 { // WeChat repeats it
					got := w.push(t, doc)
					want := passiveReply{sender, "gh_0123456789ab", "text", text}
					if got != want {
						t.Errorf("text %.100q: got reply %.500q, want %.500q", text, got, want)
					}
				}
				handled := fmt.Sprintf("handled %d\n", 1000+i)
				if n := strings.Count(p.out.String(), handled); n != 1 {
					t.Errorf("text %.100q: got it handled %d times, want once", text, n)
				}
			}
			doc := textMessage(2000, "forged")
			for name, signature := range map[string]string{
				"none":        "",
				"another key": sign("another", time.Now(), doc),
				"old":         sign(deliverySecret, time.Now().Add(-time.Hour), doc),
				"other body":  sign(deliverySecret, time.Now(), doc+" "),
				"no form":     "v1=,t=,", "no time": "t=,v1=" + strings.Repeat("a", 64),
			} {
				req, err := http.NewRequest("POST", p.url, strings.NewReader(doc))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Wxproxy-Event", "event")
				req.Header.Set("X-Wxproxy-Signature", signature)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Errorf("signature %q: %v", name, err)
					continue
				}
				resp.Body.Close()
				if resp.StatusCode != 403 {
					t.Errorf("signature %q: got HTTP status %d, want 403", name, resp.StatusCode)
				}
			}
			if strings.Contains(p.out.String(), "handled 2000") {
				t.Error("got an unsigned message handled")
			}
		})
	}
}

// sign returns the value of X-Wxproxy-Signature.
func sign(secret string, at time.Time, body string) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%x", at.Unix(), h.Sum(nil))
}

// TestMiddleware runs the message servers of unmodified SDKs behind wxproxy: in
// plain mode, which a block with a token imitates, and with WeChat's own
// encryption, which a block in mode raw passes on.
func TestMiddleware(t *testing.T) {
	if !enabled {
		t.Skip("run make conformance, which installs the SDKs")
	}
	for name, s := range map[string]sdk{
		"wechat":            {name: "wechat", node: true},
		"silenceper-server": {name: "silenceper-server"},
	} {
		command := s.command(t)
		start := func(t *testing.T, token, key string) *process {
			return startService(t, name, func(string) []string { return command },
				"APPID="+sandbox.DefaultComponentAppID, "TOKEN="+token, "KEY="+key)
		}
		check := func(t *testing.T, w *env, p *process, texts ...string) {
			for i, text := range texts {
				got := w.push(t, textMessage(1000+i, text))
				reply := strings.ReplaceAll(text, "]]>", "...") + " from " + sender
				want := passiveReply{sender, "gh_0123456789ab", "text", reply}
				if got != want {
					t.Errorf("got reply %.500q, want %.500q", got, want)
				}
			}
		}
		t.Run(name+"/plain", func(t *testing.T) {
			p := start(t, deliveryToken, "")
			w := newEnv(t, false, fmt.Sprintf(
				"\n[[forward]]\nappids = [%q]\nevents = [\"*\"]\nurl = %q\ntoken = %q\n",
				appid, p.url, deliveryToken))
			check(t, w, p, "hello", "你好 😀", "a]]>b", "<![CDATA[a")
		})
		t.Run(name+"/raw", func(t *testing.T) {
			p := start(t, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey)
			w := newEnv(t, false, fmt.Sprintf(
				"\n[[forward]]\nappids = [%q]\nevents = [\"*\"]\nurl = %q\nmode = \"raw\"\n",
				appid, p.url))
			check(t, w, p, "hello", "你好 😀")
		})
	}
}

// docs/services.md has the services of this test, byte for byte.
func TestServicesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"service.py", "service.js", "service.php", "service.go", "Service.java",
	} {
		program, err := os.ReadFile(filepath.Join("services", name))
		if err != nil {
			t.Fatal(err)
		}
		language := strings.TrimPrefix(filepath.Ext(name), ".")
		if !strings.Contains(string(page), "\n```"+language+"\n"+string(program)+"```\n") {
			t.Errorf("docs/services.md: got no copy of %s, want it in a block %s", name, language)
		}
	}
}
