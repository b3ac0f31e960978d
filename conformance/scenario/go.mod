module wxproxy/conformance/scenario

go 1.26.0
