//go:build tools

// Package tools names what is built from this module, so that go.sum covers it.
package tools

import (
	_ "github.com/rhysd/actionlint/cmd/actionlint"
	_ "github.com/zegl/kube-score/cmd/kube-score"
)
