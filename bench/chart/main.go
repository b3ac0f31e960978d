// Command chart draws what bench/peers.sh has measured, as bars: the processor time of a call, by proxy, and how many calls a
// second succeed when there are far too many callers.
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

const (
	left, width, bar, gap = 130, 430, 16, 6
	ours                  = "wxproxy"
)

// row is a line of a table of bench/peers.sh.
type row struct {
	name                      string
	us, ratio, tail, succeeds float64
}

func costs(r row) (float64, string)    { return r.us, fmt.Sprintf("%.1f µs", r.us) }
func succeeds(r row) (float64, string) { return r.succeeds, fmt.Sprintf("%.0f a second", r.succeeds) }

var groups = []struct {
	title string
	value func(row) (float64, string)
}{
	{"Processor time for a call, plain HTTP to WeChat", costs},
	{"Processor time for a call, TLS to WeChat, as in life", costs},
	{"Calls that succeed with 2,000 callers who never pause", succeeds},
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
		most := 0.0
		for _, r := range rows {
			v, _ := group.value(r)
			most = max(most, v)
		}
		y += 20
		fmt.Fprintf(&out, "<text x=\"10\" y=\"%d\" font-weight=\"bold\" fill=\"#222222\">%s</text>\n", y, group.title)
		y += 10
		for _, r := range rows {
			color := "#9aa7b4"
			if r.name == ours {
				color = "#07c160"
			}
			v, label := group.value(r)
			long := int(v / most * width)
			fmt.Fprintf(&out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#222222\">%s</text><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/><text x=\"%d\" y=\"%d\" fill=\"#222222\">%s</text>\n",
				left-8, y+bar-4, escaped(r.name), left, y, long, bar, color, left+long+6, y+bar-4, label)
			y += bar + gap
		}
	}
	y += 30
	fmt.Printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", left+width+110, y)
	fmt.Print(out.String())
	fmt.Printf("<text x=\"10\" y=\"%d\" fill=\"#666666\" font-size=\"11\">%s</text>\n</svg>\n", y-8, escaped(os.Args[1]))
}

// read takes the rows of a table, as it is sorted.
func read(path string) (rows []row, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var r row
		if _, err := fmt.Sscanf(line, "%s %f us %f %f ms %f", &r.name, &r.us, &r.ratio, &r.tail, &r.succeeds); err == nil {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s holds no table", path)
	}
	return rows, nil
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
