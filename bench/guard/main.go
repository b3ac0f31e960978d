// Command guard measures the CPU time of a request through wxproxy, with caller
// authentication and metrics, and of the same request through the simplest
// proxy that fasthttp allows (bench/bare). It fails if their ratio exceeds a
// limit.
//
// Times differ between machines and between minutes. The ratio differs less,
// and the ratio of the smallest times least.
//
//	go run ./bench/guard -limit 1.35
package main

import (
	"flag"
	"fmt"
	"log"
	"slices"
	"time"

	"wxproxy/bench/harness"
)

func main() {
	rounds := flag.Int("rounds", 7, "measurements of each proxy")
	length := flag.Duration("length", 1500*time.Millisecond, "length of one measurement")
	conns := flag.Int("connections", 32, "concurrent connections")
	limit := flag.Float64("limit", 0, "ratio above which the exit code is 1; 0 disables it")
	flag.Parse()
	log.SetFlags(0)
	// A busy machine can spoil one attempt, but hardly three.
	for range 3 {
		ratio, err := run(*rounds, *length, *conns)
		if err != nil {
			log.Fatal(err)
		}
		if *limit == 0 || ratio <= *limit {
			return
		}
	}
	log.Fatalf("a request costs more than %.2f times a request through bench/bare", *limit)
}

// run measures both proxies in turn and returns the ratio of their costs.
func run(rounds int, length time.Duration, conns int) (float64, error) {
	s, err := harness.New()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	wechat, err := harness.NewWeChat(true)
	if err != nil {
		return 0, err
	}
	bare, err := s.Bare(wechat)
	if err != nil {
		return 0, err
	}
	wxproxy, err := s.Wxproxy(wechat, "memory:")
	if err != nil {
		return 0, err
	}
	for round := range rounds + 1 {
		for _, c := range []*harness.Target{bare, wxproxy} {
			cost, err := c.Cost(length, conns)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", c.Name, err)
			}
			if round > 0 { // the first round warms up
				c.Costs = append(c.Costs, cost)
				fmt.Printf("%-8s %v\n", c.Name, cost.Round(100*time.Nanosecond))
			}
		}
	}
	// The minimum, because other work on the machine only adds to a cost.
	cost, bareCost := slices.Min(wxproxy.Costs), slices.Min(bare.Costs)
	ratio := float64(cost) / float64(bareCost)
	fmt.Printf("CPU time per request, minimum of %d: %v, bare %v: ratio %.2f\n",
		rounds, cost.Round(100*time.Nanosecond), bareCost.Round(100*time.Nanosecond), ratio)
	return ratio, nil
}
