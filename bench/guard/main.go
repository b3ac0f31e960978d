// Command guard measures what a call through wxproxy costs, with a caller's key, metrics and all, beside the same call
// through the barest proxy that fasthttp allows (bench/bare), in turn, and fails where the ratio is over a limit. Times
// differ from machine to machine, and from minute to minute; the ratio differs less, and the least of some rounds least.
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
	rounds := flag.Int("rounds", 7, "how often each is measured")
	length := flag.Duration("length", 1500*time.Millisecond, "how long one measurement takes")
	conns := flag.Int("connections", 32, "connections at once")
	limit := flag.Float64("limit", 0, "ratio above which the exit code is 1; 0: none")
	flag.Parse()
	log.SetFlags(0)
	// A busy machine can spoil one measurement, and hardly three.
	for range 3 {
		ratio, err := run(*rounds, *length, *conns)
		if err != nil {
			log.Fatal(err)
		}
		if *limit == 0 || ratio <= *limit {
			return
		}
	}
	log.Fatalf("more than %.2f times the bare proxy", *limit)
}

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
	ours, err := s.Wxproxy(wechat, "memory:")
	if err != nil {
		return 0, err
	}
	for round := range rounds + 1 {
		for _, c := range []*harness.Target{bare, ours} {
			cost, err := c.Cost(length, conns)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", c.Name, err)
			}
			if round > 0 { // the first is for warming up
				c.Costs = append(c.Costs, cost)
				fmt.Printf("%-8s %v\n", c.Name, cost.Round(100*time.Nanosecond))
			}
		}
	}
	// The least: what else goes on at the machine only adds.
	least, bareLeast := slices.Min(ours.Costs), slices.Min(bare.Costs)
	ratio := float64(least) / float64(bareLeast)
	fmt.Printf("processor time for one call, least of %d: %v, bare %v: ratio %.2f\n", rounds, least.Round(100*time.Nanosecond), bareLeast.Round(100*time.Nanosecond), ratio)
	return ratio, nil
}
