package gateway

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// Metrics counts what the gateway does, for Prometheus. Labels come from configuration and fixed words only, so that no
// caller can make series.
type Metrics struct {
	Registry *prometheus.Registry

	inFlight prometheus.Gauge
	calls    *prometheus.CounterVec
	refusals *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	tokens   *prometheus.CounterVec
	failures prometheus.Counter
	verdicts *prometheus.CounterVec
	shadows  *prometheus.CounterVec

	mu   sync.Mutex
	byID map[seriesKey]*series
}

type seriesKey struct {
	provider, kind string
	stream         bool
}

type series struct {
	calls         prometheus.Counter
	seconds       prometheus.Observer
	input, output prometheus.Counter
}

// NewMetrics makes the counters in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry(), byID: map[seriesKey]*series{}}
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "fairlead_calls_in_flight", Help: "Calls under way."})
	m.calls = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_calls_total",
		Help: "Calls that went upstream, by provider, outcome and whether they streamed."}, []string{"provider", "outcome", "stream"})
	m.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_refusals_total", Help: "Calls not let through, by reason."}, []string{"reason"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "fairlead_call_duration_seconds",
		Help: "From a call's arrival to its recorded outcome.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 18)}, []string{"provider", "stream"})
	m.tokens = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_tokens_total", Help: "Tokens as the provider counts them."}, []string{"provider", "type"})
	m.failures = prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_auth_failures_total", Help: "Credentials that did not hold."})
	m.verdicts = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_policy_verdicts_total", Help: "Decisions of the live policy set, also those that observe mode does not obey."}, []string{"action", "effect"})
	m.shadows = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_policy_shadow_differs_total", Help: "Decisions in which the shadow policy set differs from the live one."}, []string{"action", "live", "shadow"})
	m.Registry.MustRegister(m.inFlight, m.calls, m.refusals, m.seconds, m.tokens, m.failures, m.verdicts, m.shadows)
	return m
}

func (m *Metrics) refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

func (m *Metrics) decided(a policy.Action, e fairlead.Effect) {
	m.verdicts.WithLabelValues(string(a), string(e)).Inc()
}

func (m *Metrics) shadowed(a policy.Action, live, shadow fairlead.Effect) {
	m.shadows.WithLabelValues(string(a), string(live), string(shadow)).Inc()
}

func (m *Metrics) authFailed(n int64) { m.failures.Add(float64(n)) }

// finished counts a call. Looking a series up by its labels costs more than counting, so they are kept.
func (m *Metrics) finished(c *call, o *outcome) {
	k := seriesKey{c.target.provider.Name, o.kind, c.exchange.Stream}
	m.mu.Lock()
	s := m.byID[k]
	if s == nil {
		stream := strconv.FormatBool(k.stream)
		s = &series{m.calls.WithLabelValues(k.provider, k.kind, stream), m.seconds.WithLabelValues(k.provider, stream),
			m.tokens.WithLabelValues(k.provider, "input"), m.tokens.WithLabelValues(k.provider, "output")}
		m.byID[k] = s
	}
	m.mu.Unlock()
	s.calls.Inc()
	s.seconds.Observe(c.g.now().Sub(c.start).Seconds())
	if o.answer != nil {
		s.input.Add(float64(max(o.answer.Usage.Input, 0)))
		s.output.Add(float64(max(o.answer.Usage.Output, 0)))
	}
}
