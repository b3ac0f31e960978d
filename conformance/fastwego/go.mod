module wxproxy/conformance/fastwego

go 1.26.0

require (
	github.com/fastwego/miniprogram v1.0.0-beta.4
	github.com/fastwego/offiaccount v1.0.1
	github.com/fastwego/wxopen v1.0.0-beta.3
	wxproxy/conformance/scenario v0.0.0
)

require github.com/faabiosr/cachego v0.16.1 // indirect

replace wxproxy/conformance/scenario => ../scenario
