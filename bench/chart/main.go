// Command chart draws what bench/peers.sh has measured, as bars: the processor time of a call, by proxy.
//
//	chart "a caption" plain.txt tls.txt > chart.svg
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

type row struct {
	name string
	us   float64
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal(`usage: chart "a caption" plain.txt tls.txt > chart.svg`)
	}
	var groups [2][]row
	most := 0.0
	for i, path := range os.Args[2:] {
		text, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var r row
			if _, err := fmt.Sscanf(line, "%s %f us", &r.name, &r.us); err == nil {
				groups[i] = append(groups[i], r)
				most = max(most, r.us)
			}
		}
		if len(groups[i]) == 0 {
			log.Fatal(path, " holds no table")
		}
	}
	height := 30 + 2*34 + (len(groups[0])+len(groups[1]))*(bar+gap)
	fmt.Printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", left+width+80, height)
	y := 10
	for i, title := range []string{"WeChat's side speaks plain HTTP", "WeChat's side speaks TLS, as in life"} {
		y += 20
		fmt.Printf("<text x=\"10\" y=\"%d\" font-weight=\"bold\" fill=\"#222222\">%s</text>\n", y, title)
		y += 10
		for _, r := range groups[i] {
			colour := "#9aa7b4"
			if r.name == ours {
				colour = "#07c160"
			}
			long := int(r.us / most * width)
			fmt.Printf("<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#222222\">", left-8, y+bar-4)
			_ = xml.EscapeText(os.Stdout, []byte(r.name))
			fmt.Printf("</text><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/><text x=\"%d\" y=\"%d\" fill=\"#222222\">%.1f µs</text>\n",
				left, y, long, bar, colour, left+long+6, y+bar-4, r.us)
			y += bar + gap
		}
	}
	fmt.Printf("<text x=\"10\" y=\"%d\" fill=\"#666666\" font-size=\"11\">", height-8)
	_ = xml.EscapeText(os.Stdout, []byte(os.Args[1]))
	fmt.Println("</text>\n</svg>")
}
