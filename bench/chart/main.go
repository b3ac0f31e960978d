// Command chart draws the results of bench/peers.sh as bars: CPU time per
// request, and requests that succeed under far too many callers, by proxy.
//
//	chart "a caption" plain.txt tls.txt crowd.txt > chart.svg
package main

import (
	"encoding/xml"
	"fmt"
	"log"
	"os"
	"strings"
)

// Sizes in pixels.
const (
	left  = 130 // of the names
	width = 430 // of the longest bar
	bar   = 16  // height
	gap   = 6   // between bars
)

// highlighted is the proxy whose bars have a color of their own.
const highlighted = "wxproxy"

// row is one line of a table of bench/peers.sh.
type row struct {
	name  string
	cost  float64 // µs of CPU time per request
	ratio float64 // to bare fasthttp
	tail  float64 // 99th percentile in ms
	rate  float64 // requests per second that succeeded
}

func costOf(r row) (float64, string) { return r.cost, fmt.Sprintf("%.1f µs", r.cost) }
func rateOf(r row) (float64, string) { return r.rate, fmt.Sprintf("%.0f per second", r.rate) }

// groups are the parts of the chart, one for each file on the command line.
var groups = []struct {
	title string
	value func(row) (float64, string)
}{
	{"CPU time per request, plain HTTP to WeChat", costOf},
	{"CPU time per request, TLS to WeChat, as in production", costOf},
	{"Requests that succeed with 2,000 callers that never pause", rateOf},
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2+len(groups) {
		log.Fatal(`usage: chart "a caption" plain.txt tls.txt crowd.txt > chart.svg`)
	}
	var out strings.Builder
	y := 10
	for i, group := range groups {
		rows, err := read(os.Args[2+i])
		if err != nil {
			log.Fatal(err)
		}
		largest := 0.0
		for _, r := range rows {
			v, _ := group.value(r)
			largest = max(largest, v)
		}
		y += 20
		fmt.Fprintf(&out, `<text x="10" y="%d" font-weight="bold" fill="#222222">%s</text>`+"\n", y,
			group.title)
		y += 10
		for _, r := range rows {
			color := "#9aa7b4"
			if r.name == highlighted {
				color = "#07c160"
			}
			v, label := group.value(r)
			length := int(v / largest * width)
			fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end" fill="#222222">%s</text>`,
				left-8, y+bar-4, escaped(r.name))
			fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`,
				left, y, length, bar, color)
			fmt.Fprintf(&out, `<text x="%d" y="%d" fill="#222222">%s</text>`+"\n",
				left+length+6, y+bar-4, label)
			y += bar + gap
		}
	}
	y += 30
	fmt.Printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		left+width+110, y)
	fmt.Println(`<rect width="100%" height="100%" fill="#ffffff"/>`)
	fmt.Print(out.String())
	fmt.Printf(`<text x="10" y="%d" fill="#666666" font-size="11">%s</text>`+"\n</svg>\n", y-8,
		escaped(os.Args[1]))
}

// read returns the rows of a table in their order. Other lines are skipped.
func read(path string) (rows []row, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var r row
		_, err := fmt.Sscanf(line, "%s %f us %f %f ms %f", &r.name, &r.cost, &r.ratio, &r.tail, &r.rate)
		if err == nil {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no table in %s", path)
	}
	return rows, nil
}

// escaped returns s as text for XML.
func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
