module wxproxy/conformance/weapp

go 1.26.0

require (
	github.com/medivhzhan/weapp/v3 v3.6.19
	wxproxy/conformance/scenario v0.0.0
)

require (
	github.com/fatih/color v1.15.0 // indirect
	github.com/mattn/go-colorable v0.1.13 // indirect
	github.com/mattn/go-isatty v0.0.18 // indirect
	github.com/mitchellh/mapstructure v1.5.0 // indirect
	golang.org/x/sys v0.6.0 // indirect
)

replace wxproxy/conformance/scenario => ../scenario
