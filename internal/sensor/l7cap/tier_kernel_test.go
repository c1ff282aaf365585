package l7cap

import "ghostlight/internal/kernel"

// tier is one way to see everything.
type tier struct {
	name  string
	hooks func([]kernel.Hook) []kernel.Hook
}

var tiers = []tier{{name: "best"}}
