package callback

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"wxproxy/callback/queue"
)

// newServiceClient returns the HTTP client for the services. They belong to the
// operator, so it uses no proxy and follows no redirect.
func newServiceClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    2 * time.Second,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        512, // a service that hangs must not use up all sockets
			MaxResponseHeaderBytes: 64 << 10,
			Protocols:              protocols,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// post delivers a push to a service and returns the response, whose status is
// 2xx and whose body the caller must read or close. Errors mean that the
// service has not accepted the push. They quote neither the address, which can
// hold a key, nor the response. [queue.Unavailable] marks those that concern
// the service as a whole.
func post(ctx context.Context, client *http.Client, d delivery) (*http.Response, error) {
	req, err := d.request(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, queue.Unavailable(fmt.Errorf("reaching the service: %w", sanitizeError(err)))
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	discard(resp)
	err = fmt.Errorf("service responded with HTTP %d", resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		err = queue.Unavailable(err)
	}
	return nil, err
}

// discard closes a response whose body does not matter. It reads a short body,
// so that the connection can be used again, and does not wait for others.
func discard(resp *http.Response) {
	const short = 4 << 10
	if resp.ContentLength >= 0 && resp.ContentLength <= short {
		_, _ = io.CopyN(io.Discard, resp.Body, short)
	}
	_ = resp.Body.Close()
}

// sanitizeError returns an error of net/http without the address, which can
// hold a key, and without what the service sent.
func sanitizeError(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("timeout")
	case errors.Is(err, context.Canceled):
		return errors.New("wxproxy is stopping")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("connection closed by the service")
	}
	return errors.New("response is not HTTP, or its header is too large") // err quotes it
}
