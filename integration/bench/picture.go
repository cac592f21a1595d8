package main

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	panelWidth  = 440
	panelGap    = 24
	labelWidth  = 118
	valueWidth  = 92 // room for the number behind the longest bar
	barHeight   = 16
	barStep     = 22
	panelHead   = 34
	pictureHead = 52
)

// pictureStyle gives both colour schemes; bars of uvs stand out from the peers'.
const pictureStyle = `text{font:12px system-ui,sans-serif;fill:#1f2328}
.page{fill:#ffffff}.title{font-size:15px;font-weight:600}.panel{font-weight:600}.faint{fill:#59636e;font-size:11px}
.peer{fill:#8c959f}.uvs{fill:#0969da}.range{stroke:#1f2328;stroke-width:1;opacity:.55}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.faint{fill:#9198a1}.peer{fill:#6e7681}.uvs{fill:#4493f8}.range{stroke:#e6edf3}}`

// Picture draws the medians of a report as an SVG: one panel per test, one bar
// per contender, a thin line from the lowest to the highest round.
func Picture(r *Report) string {
	panelHeight := panelHead + len(r.Contenders)*barStep + 10
	rows := (len(r.Tests) + 1) / 2
	width := 2*panelWidth + 3*panelGap
	height := pictureHead + rows*(panelHeight+panelGap)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="uvs and its peers, measured in one run">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<style>%s</style>\n<rect class=\"page\" width=\"%d\" height=\"%d\"/>\n", pictureStyle, width, height)
	text(&b, "title", panelGap, 24, "uvs and its peers, medians of one run")
	text(&b, "faint", panelGap, 42, fmt.Sprintf("%s, %d cores of %s shared by client, director and real server, commit %s", r.Time.Format("2006-01-02"), r.Machine.Cores, r.Machine.CPU, r.Commit))
	for i, t := range r.Tests {
		x := panelGap + i%2*(panelWidth+panelGap)
		y := pictureHead + i/2*(panelHeight+panelGap)
		panel(&b, r, t, x, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func panel(b *strings.Builder, r *Report, t Test, x, y int) {
	better := "more is better"
	if t.Lower {
		better = "less is better"
	}
	text(b, "panel", x, y+14, fmt.Sprintf("%s, %s", upper(t.Title), t.Unit))
	text(b, "faint", x, y+28, better)
	top := 0.0
	for _, c := range r.Contenders {
		top = max(top, r.figure(t.Name, c.Name, value).top)
	}
	for i, c := range r.Contenders {
		line := y + panelHead + i*barStep
		text(b, "", x, line+12, c.Title)
		f := r.figure(t.Name, c.Name, value)
		if f.rounds == 0 {
			text(b, "faint", x+labelWidth, line+12, "not measured")
			continue
		}
		class := "peer"
		if known, err := contenderByName(c.Name); err == nil && known.uvs {
			class = "uvs"
		}
		scale := func(v float64) float64 { return v / top * (panelWidth - labelWidth - valueWidth) }
		left := float64(x + labelWidth)
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%.0f\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", class, left, line, scale(f.value), barHeight)
		mid := float64(line) + barHeight/2
		fmt.Fprintf(b, "<line class=\"range\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>\n", left+scale(f.low), mid, left+scale(f.top), mid)
		label := formatValue(f.value, t.Unit)
		if f.noisy > 0 {
			label += " (noisy)"
		}
		text(b, "", int(left+scale(f.top))+6, line+12, label)
	}
}

func text(b *strings.Builder, class string, x, y int, s string) {
	fmt.Fprintf(b, "<text class=\"%s\" x=\"%d\" y=\"%d\">", class, x, y)
	xml.EscapeText(b, []byte(s)) // a strings.Builder does not fail
	b.WriteString("</text>\n")
}
