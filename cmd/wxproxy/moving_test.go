package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wxproxy/internal/proctest"
)

// These tests run the commands of docs/moving.md against a real Redis that
// contains what the SDKs write.

const (
	movingPlatform = "wxc000000000000000" // as in the commands
	movingA        = "wxd0000000000000a1"
	movingB        = "wxd0000000000000a2"
	movingC        = "wxd0000000000000a3"
)

// Refresh tokens in the form of today, in that of earlier years, and longer
// than any that is known.
var (
	movingToday = "refreshtoken@@@Kq3xV-_mN0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1"
	movingOld   = "9TO-YCXPL4llX-u1W1pPpnp8Hgm4wpJtlR6iV0doKdY"
	movingLong  = "refreshtoken@@@" + strings.Repeat("xY_-", 50)
)

// movingCommand returns the block of docs/moving.md after the comment that
// names it.
func movingCommand(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "moving.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- tested: " + name + " -->\n```sh\n(.*?)```\n").FindSubmatch(text)
	if block == nil {
		t.Fatalf("docs/moving.md: got no block with the mark <!-- tested: %s -->", name)
	}
	return string(block[1])
}

// movingCodecs contains how the codecs of Redisson encode a string.
var movingCodecs = map[string]func(string) string{
	"StringCodec":      func(s string) string { return s },
	"JsonJacksonCodec": strconv.Quote,
	// Class 3, then the length and one, its first byte with the bits 7 (text)
	// and 6 (more follows).
	"Kryo5Codec": func(s string) string {
		n := len(s) + 1
		if n < 1<<6 {
			return "\x03" + string([]byte{0x80 | byte(n)}) + s
		}
		return "\x03" + string([]byte{0xc0 | byte(n&0x3f), byte(n >> 6)}) + s
	},
	// Protocol version 4 of JBoss Marshalling (older ones: 3), a short string,
	// its length.
	"MarshallingCodec":     func(s string) string { return "\x04>" + string([]byte{byte(len(s))}) + s },
	"MarshallingCodec old": func(s string) string { return "\x03>" + string([]byte{byte(len(s))}) + s },
	// The length is one byte, or two after a mark, the lower one first.
	"FstCodec": func(s string) string {
		if len(s) <= 127 {
			return "\xfc" + string([]byte{byte(len(s))}) + s
		}
		return "\xfc\x80" + string([]byte{byte(len(s)), byte(len(s) >> 8)}) + s
	},
	"SerializationCodec": func(s string) string {
		return "\xac\xed\x00\x05t" + string([]byte{byte(len(s) >> 8), byte(len(s))}) + s
	},
}

func TestMovingFromWxJava(t *testing.T) {
	r := startRedis(t)
	for codec, write := range movingCodecs {
		t.Run(codec, func(t *testing.T) {
			r.do(t, "FLUSHALL")
			const key = "wechat_authorizer_refresh_token:" + movingPlatform + ":"
			r.do(t, "SET", key+movingA, write(movingToday))
			r.do(t, "SET", key+movingB, write(movingOld))
			r.do(t, "SET", "wx:open:"+key+movingC, write(movingLong)) // the starters write this form
			// Keys to ignore: of another platform, and of other kinds.
			r.do(t, "SET", "wechat_authorizer_refresh_token:wxc999999999999999:"+movingA,
				write("refreshtoken@@@another"))
			r.do(t, "SET", "wechat_authorizer_access_token:"+movingPlatform+":"+movingA, write("75_access"))
			r.do(t, "SET", "wechat_component_verify_ticket:"+movingPlatform, write("ticket@@@one"))
			r.wantCSV(t, "wxjava", movingA+","+movingToday, movingB+","+movingOld, movingC+","+movingLong)
		})
	}
}

func TestMovingFromSilenceper(t *testing.T) {
	r := startRedis(t)
	const tenYears = "315360000"
	r.do(t, "SETEX", "authorizer_refresh_token_"+movingA, tenYears, movingToday)
	r.do(t, "SETEX", "authorizer_refresh_token_"+movingB, tenYears, movingOld)
	r.do(t, "SETEX", "authorizer_access_token_"+movingA, "7170", "75_access")
	r.do(t, "SETEX", "component_access_token_"+movingPlatform, "5700", "75_component")
	r.wantCSV(t, "silenceper", movingA+","+movingToday, movingB+","+movingOld)

	// A failed renewal has left an empty token, which the check reports.
	r.do(t, "SETEX", "authorizer_refresh_token_"+movingC, tenYears, "")
	csv := r.run(t, "silenceper")
	if err := os.WriteFile(filepath.Join(r.dir, "accounts.csv"), []byte(csv), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.run(t, "check"); got != movingC+",\n" {
		t.Errorf("check: got %q, want %s for\n%s", got, movingC+",", csv)
	}
}

func TestMovingFromPowerWeChat(t *testing.T) {
	r := startRedis(t)
	for appid, token := range map[string]string{movingA: movingToday, movingB: movingOld} {
		sum := md5.Sum([]byte(movingPlatform + token + appid))
		r.do(t, "SET", "powerwechat.access_token."+hex.EncodeToString(sum[:]),
			`{"errcode":0,"errmsg":"","authorizer_access_token":"75_access","authorizer_refresh_token":"`+
				token+`","expires_in":7200}`)
	}
	r.do(t, "SET", "powerwechat.access_token.0123456789abcdef0123456789abcdef",
		`{"component_access_token":"75_component","expires_in":7200}`)
	r.do(t, "SET", "powerwechat.open_platform.verify_ticket."+movingPlatform, `"ticket@@@one"`)
	appids := movingC + "\n" + movingB + "\n" + movingA + "\n"
	if err := os.WriteFile(filepath.Join(r.dir, "appids.txt"), []byte(appids), 0o600); err != nil {
		t.Fatal(err)
	}
	r.wantCSV(t, "powerwechat", movingA+","+movingToday, movingB+","+movingOld)
}

// redisServer is a Redis for one test, on a socket.
type redisServer struct {
	dir, socket string
	conn        net.Conn
	in          *bufio.Reader
}

// toolPath returns the path of a program from .ci/tools.sh, or from the system.
// It skips the test if there is none.
func toolPath(t *testing.T, name string) string {
	t.Helper()
	folder := os.Getenv("WXPROXY_TOOLS")
	if folder == "" {
		folder = filepath.Join("..", "..", ".tools")
	}
	path, err := filepath.Abs(filepath.Join(folder, "usr", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err = exec.LookPath(name); err != nil {
		t.Skipf("no %s: run make test (or .ci/tools.sh) first", name)
	}
	return path
}

// startRedis starts a Redis that ends with the test.
func startRedis(t *testing.T) *redisServer {
	t.Helper()
	server, cli := toolPath(t, "redis-server"), toolPath(t, "redis-cli")
	dir, err := os.MkdirTemp("", "redis") // t.TempDir can be too long for the name of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &redisServer{dir: dir, socket: filepath.Join(dir, "socket")}

	// The commands call redis-cli without an address. This script adds it.
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' -s '%s' \"$@\"\n", cli, r.socket)
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "redis-cli"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	cmd := exec.Command(server, "--port", "0", "--unixsocket", r.socket, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--dir", dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	proctest.Eventually(t, func() bool {
		select {
		case <-ended:
			t.Fatalf("redis-server has exited:\n%s", out.String())
		default:
		}
		r.conn, err = net.Dial("unix", r.socket)
		return err == nil
	})
	t.Cleanup(func() { r.conn.Close() })
	r.in = bufio.NewReader(r.conn)
	return r
}

// do sends a command and checks that the reply is OK.
func (r *redisServer) do(t *testing.T, words ...string) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	r.conn.SetDeadline(time.Now().Add(proctest.Patience))
	if _, err := r.conn.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if line, err := r.in.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("%s: got %q, %v, want +OK", words[0], line, err)
	}
}

// run runs a command of docs/moving.md in the folder of the server and returns
// its output.
func (r *redisServer) run(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", movingCommand(t, name))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	// The exit code has no meaning: the last command may be a grep without a
	// match.
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if faults.Len() > 0 {
		t.Errorf("%s: got stderr %s, want none", name, faults.String())
	}
	return out.String()
}

// wantCSV runs a command and checks that it prints these lines, in any order,
// and that the check of docs/moving.md accepts them.
func (r *redisServer) wantCSV(t *testing.T, name string, want ...string) {
	t.Helper()
	csv := r.run(t, name)
	got := strings.Split(strings.TrimSuffix(csv, "\n"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n%q\nwant\n%q", name, got, want)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "accounts.csv"), []byte(csv), 0o600); err != nil {
		t.Fatal(err)
	}
	if wrong := r.run(t, "check"); wrong != "" {
		t.Errorf("check: got %q, want no output", wrong)
	}
}
