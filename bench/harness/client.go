package harness

import (
	"bufio"
	"fmt"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// clientTimeout is how long a client waits for a response.
const clientTimeout = 10 * time.Second

// client is one caller with one connection. It sends the same request each
// time.
type client struct {
	target  *Target
	conn    net.Conn
	r       *bufio.Reader
	request []byte
	resp    fasthttp.Response
}

// open connects to the target. It does not send anything: opening ten thousand
// connections must not count as load.
func (c *client) open() (err error) {
	if c.conn, err = net.Dial("tcp", c.target.address); err != nil {
		return err
	}
	c.r = bufio.NewReader(c.conn)
	c.request = fmt.Appendf(nil, "POST %s HTTP/1.1\r\n"+
		"Host: api.weixin.qq.com\r\n"+
		"X-Wxproxy-Key: %s\r\n"+
		"Content-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", c.target.path, callerKey, len(message), message)
	return nil
}

// send sends one request and returns the status. Success with another body than
// WeChat's, and any status but 200 and 503, is an error.
func (c *client) send() (int, error) {
	if err := c.conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	if err := c.resp.Read(c.r); err != nil {
		return 0, err
	}
	status, body := c.resp.StatusCode(), c.resp.Body()
	switch {
	case status == fasthttp.StatusOK && string(body) == reply,
		status == fasthttp.StatusServiceUnavailable:
		return status, nil
	}
	return status, fmt.Errorf("%w: %d %s", errStatus, status, body)
}

// succeed sends one request. A rejection is an error, too.
func (c *client) succeed() error {
	status, err := c.send()
	if err == nil && status != fasthttp.StatusOK {
		err = fmt.Errorf("%w: %d", errStatus, status)
	}
	return err
}

// run sends a request for each time that it receives from due, until due is
// closed. Times that it receives after end are counted, not used.
func (c *client) run(due <-chan time.Time, end *time.Time) (r Result) {
	defer func() { c.conn.Close() }()
	for at := range due {
		sent := time.Now()
		if sent.After(*end) {
			r.Unsent++
			continue
		}
		status, err := c.send()
		now := time.Now()
		switch {
		case err != nil:
			r.Failed, r.LastError = r.Failed+1, err
			c.conn.Close()
			for c.open() != nil {
				time.Sleep(10 * time.Millisecond)
			}
		case status == fasthttp.StatusServiceUnavailable:
			r.Rejected++
			r.RejectTimes = append(r.RejectTimes, now.Sub(sent))
		default:
			r.Done++
			if now.Before(*end) {
				r.InTime++
			}
			r.Times = append(r.Times, now.Sub(at))
			r.ServiceTimes = append(r.ServiceTimes, now.Sub(sent))
		}
	}
	return r
}
