//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// faults returns one function for each kind of disturbance. It causes the
// disturbance at random parameters and returns after its end.
func (s *soak) faults() []func() {
	var all []func()
	all = append(all, s.replicaFaults()...)
	all = append(all, s.redisFaults()...)
	all = append(all, s.partitions()...)
	all = append(all, s.weChatFaults()...)
	all = append(all, s.authorizationFaults()...)
	return append(all, s.diskFaults()...)
}

// victim returns a random replica on Redis, but not the first, whose memory is
// measured.
func (s *soak) victim() *replica {
	rs := s.onRedis.replicas
	return rs[1+s.rand.IntN(len(rs)-1)]
}

// account returns a random account on Redis.
func (s *soak) account() string { return s.onRedis.accounts[s.rand.IntN(len(s.onRedis.accounts))] }

// replicaFaults are what happens to processes. A killed replica may hold a lock
// for which others wait, or a renewed token that is not stored yet.
func (s *soak) replicaFaults() []func() {
	lost := []failureKind{connectionBroken, noTokenAvailable, tokenRejected}
	disturbance := func(kind string, at *replica, failures ...failureKind) *disturbance {
		return &disturbance{kind: kind, system: s.onRedis, at: at, failures: failures}
	}
	return []func(){
		func() {
			r := s.victim()
			s.during(disturbance("kill -9", r, lost...), func() {
				r.kill()
				s.sleep(s.between(100, 2000))
				r.start()
			})
		},
		func() {
			r := s.victim()
			s.during(disturbance("kill -9 twice", r, lost...), func() {
				r.kill()
				r.start()
				r.kill()
				r.start()
			})
		},
		func() {
			r := s.victim()
			s.during(disturbance("SIGSTOP", r, noTokenAvailable), func() {
				r.signal(syscall.SIGSTOP)
				s.sleep(s.between(500, 10000))
				r.signal(syscall.SIGCONT)
			})
		},
		func() {
			r := s.victim()
			s.during(disturbance("restart", nil), func() {
				r.stop()
				s.sleep(s.between(1, 1000))
				r.start()
			})
		},
		func() {
			r, offset := s.victim(), s.offsets[s.rand.IntN(len(s.offsets))]
			d := disturbance("the clock of one replica is wrong", nil, noTokenAvailable, tokenRejected)
			// To this replica each token of the others has expired or is new, or
			// the reverse.
			d.forces = len(s.onRedis.accounts)
			s.during(d, func() {
				r.stop()
				r.linked = clockOffset + offset
				r.start()
				s.sleep(s.between(2000, 10000))
				r.stop()
				r.linked = ""
				r.start()
			})
		},
	}
}

// redisFaults are what happens to the Redis of all replicas.
func (s *soak) redisFaults() []func() {
	disturbance := func(kind string) *disturbance {
		return &disturbance{kind: kind, system: s.onRedis,
			failures: []failureKind{noTokenAvailable, tokenRejected}}
	}
	redis := s.onRedis.redis
	return []func(){
		func() {
			s.during(disturbance("Redis restarts"), func() {
				redis.kill()
				s.sleep(s.between(100, 4000))
				redis.start()
			})
		},
		func() {
			s.during(disturbance("Redis does not respond"), func() {
				redis.signal(syscall.SIGSTOP)
				s.sleep(s.between(100, 4000))
				redis.signal(syscall.SIGCONT)
			})
		},
		func() {
			d := disturbance("Redis loses a bucket")
			d.failures = nil
			s.during(d, func() {
				if d.forces = redis.loseBucket(s.account()); d.forces == 0 {
					s.t.Error("losing a bucket: got no records in it, want some")
				}
			})
		},
		func() {
			d := disturbance("a record is damaged")
			d.account, d.failures, d.forces = s.account(), nil, 1
			s.during(d, func() {
				if !redis.damage(d.account) {
					s.t.Error("damaging a record: got no record")
				}
			})
		},
	}
}

// partitions cut off one replica from one server, in each way. Afterwards, its
// connections are reset, or what was held arrives late.
func (s *soak) partitions() (all []func()) {
	ways := []struct {
		name string
		cut  cut
	}{
		{"no bytes pass", silent}, {"requests are lost", requestsLost},
		{"responses are lost", responsesLost}, {"connections are reset", resetting},
	}
	for _, way := range ways {
		for _, from := range []string{"Redis", "WeChat"} {
			all = append(all, func() {
				r := s.victim()
				d := &disturbance{kind: "one replica and " + from + ": " + way.name,
					system: s.onRedis, at: r, failures: []failureKind{noTokenAvailable, tokenRejected}}
				l, length := r.toRedis, s.between(500, 6000)
				if from == "WeChat" {
					l = r.toWeChat
					d.failures = append(d.failures, weChatUnreachable)
					// Accounts whose renewals get no response.
					d.forces = 1 + int(int64(len(s.onRedis.accounts))*int64(length)/int64(soakLife))
				}
				s.during(d, func() {
					l.fail(way.cut)
					s.sleep(length)
					l.repair(s.rand.IntN(2) == 0)
				})
			})
		}
	}
	return all
}

// while adds a fault to WeChat for a time.
func (s *soak) while(f sandbox.Fault, length time.Duration) {
	id, err := s.onRedis.wx.AddFault(f)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.sleep(length)
	s.onRedis.wx.RemoveFault(id)
}

// weChatFaults are what WeChat does to the whole component.
func (s *soak) weChatFaults() []func() {
	disturbance := func(kind string, failures ...failureKind) *disturbance {
		return &disturbance{kind: kind, system: s.onRedis, failures: failures}
	}
	wx := s.onRedis.wx
	return []func(){
		func() {
			s.during(disturbance("renewals get 502", noTokenAvailable), func() {
				bad := sandbox.Fault{Path: "/cgi-bin/component/", Status: 502}
				s.while(bad, s.between(500, 4000))
			})
		},
		func() {
			// The pause is five seconds; it is half an hour for a day's quota.
			s.during(disturbance("renewals exceed a quota (9402202)", noTokenAvailable), func() {
				s.while(sandbox.Fault{Path: refreshPath, ErrCode: 9402202}, s.between(1000, 4000))
			})
		},
		func() {
			s.during(disturbance("requests get 502", upstreamError), func() {
				s.while(sandbox.Fault{Path: "/cgi-bin/message/", Status: 502}, s.between(200, 2000))
			})
		},
		func() {
			s.during(disturbance("renewals are slow"), func() {
				s.while(sandbox.Fault{Path: refreshPath, Delay: sandbox.Span(s.between(500, 4000))},
					s.between(500, 4000))
			})
		},
		func() {
			d := disturbance("connections of renewals break", noTokenAvailable, tokenRejected)
			d.forces = 1 + s.rand.IntN(3)
			s.during(d, func() {
				broken := sandbox.Fault{Path: refreshPath, Break: sandbox.BreakBefore, Times: d.forces}
				s.while(broken, s.between(500, 3000))
			})
		},
		func() {
			s.during(disturbance("no tickets, and the component's token expires early"), func() {
				if err := wx.SetPushURL(""); err != nil {
					s.t.Error(err)
				}
				wx.Expire(sandbox.DefaultComponentAppID)
				s.sleep(s.between(1000, 8000))
				if err := wx.SetPushURL(s.onRedis.pushURL); err != nil {
					s.t.Error(err)
				}
			})
		},
	}
}

// authorizationFaults are what concerns one account.
func (s *soak) authorizationFaults() []func() {
	wx := s.onRedis.wx
	disturbance := func(kind string, forces int, failures ...failureKind) *disturbance {
		return &disturbance{kind: kind, system: s.onRedis, account: s.account(), forces: forces,
			failures: failures}
	}
	return []func(){
		func() {
			d := disturbance("revoked and authorized again", 2,
				accountRevoked, noTokenAvailable, tokenRejected)
			s.during(d, func() {
				if err := wx.Unauthorize(s.t.Context(), d.account); err != nil {
					s.t.Log("pushing a revocation: ", err)
				}
				s.sleep(s.between(100, 3000))
				if _, err := wx.Authorize(s.t.Context(), d.account); err != nil {
					s.t.Log("pushing an authorization: ", err)
				}
			})
		},
		func() {
			d := disturbance("one renewal is answered with 61003", 2,
				accountRevoked, noTokenAvailable)
			s.during(d, func() {
				id, err := wx.AddFault(sandbox.Fault{
					Path: refreshPath, Appid: d.account, ErrCode: 61003, Times: 1})
				if err != nil {
					s.t.Error(err)
				}
				wx.Expire(d.account)
				same := func(f sandbox.Fault) bool { return f.ID == id }
				proctest.Eventually(s.t, func() bool {
					return !slices.ContainsFunc(wx.Faults(), same)
				})
			})
		},
		func() {
			d := disturbance("a token expires early", 1)
			s.during(d, func() { wx.Expire(d.account) })
		},
	}
}

// diskFaults are what happens to the store in a file. Only accounts whose
// tokens expire meanwhile notice.
func (s *soak) diskFaults() []func() {
	sys := s.onFile
	disturbance := func(kind string, at *replica, failures ...failureKind) *disturbance {
		return &disturbance{kind: kind, system: sys, at: at, failures: failures}
	}
	next := 0 // each account in turn: repeated rejections of one are throttled
	return []func(){
		func() {
			d := disturbance("the disk cannot be written", nil, noTokenAvailable, tokenRejected)
			d.forces = 3 // the one below, and what could not be saved
			s.during(d, func() {
				sys.replicas[0].limitFiles(s.t, "0")
				next++
				sys.wx.Expire(sys.accounts[next%len(sys.accounts)])
				s.sleep(s.between(500, 6000))
				sys.replicas[0].limitFiles(s.t, "unlimited")
			})
		},
		func() {
			r := sys.replicas[0]
			s.during(disturbance("kill -9", r, connectionBroken, noTokenAvailable, tokenRejected),
				func() { r.kill(); r.start() })
		},
	}
}

// limitFiles limits the size of files that the replica writes, in bytes. With
// 0, each write to a file fails as on a full disk.
func (r *replica) limitFiles(t *testing.T, size string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, err := exec.Command("prlimit", "--pid", fmt.Sprint(r.cmd.Process.Pid),
		"--fsize="+size+":unlimited").CombinedOutput()
	if err != nil {
		t.Errorf("prlimit: %v: %s", err, out)
	}
}
