package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// An internal test, because no public function makes the whole collection fail.
func TestScraperDoesNotSeeErrors(t *testing.T) {
	own := prometheus.NewRegistry()
	h := handler(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return nil, errors.New("redis://user:pass@10.0.0.1: refused")
	}), own)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "pass") {
		t.Errorf("scrape: got %d %s, want 500 without the error", w.Code, w.Body)
	}
	counted, err := own.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := counted[0].String(); !strings.Contains(got, `value:"gathering"`) || !strings.Contains(got, "value:1") {
		t.Errorf("errors counted: got %s, want one with cause gathering", got)
	}
}
