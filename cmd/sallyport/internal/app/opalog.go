package app

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/decisionlog"
)

// opaLog hands decisions to OPA's decision log plugin, when policy.opa configures
// one: its uploads, its drop and mask rules. What it gets has been masked. It is
// called by the decision log's worker and never delays a request; the plugin has
// bounded buffers of its own.
type opaLog struct {
	logger *slog.Logger
	// manager returns OPA's manager of the policy that decides; nil when it has none.
	manager func() *plugins.Manager
}

// Emit implements decisionlog.Sink.
func (o *opaLog) Emit(ctx context.Context, e *decisionlog.Event) {
	m := o.manager()
	if m == nil || e.DecisionID == "" {
		return // the policy was not asked
	}
	plugin := logs.Lookup(m)
	if plugin == nil {
		return
	}
	if err := o.emit(ctx, m, plugin, e); err != nil {
		o.logger.WarnContext(ctx, "OPA's decision log refused a decision", slog.String("decision_id", e.DecisionID), slog.Any("error", err))
	}
}

func (o *opaLog) emit(ctx context.Context, m *plugins.Manager, plugin *logs.Plugin, e *decisionlog.Event) error {
	info := &server.Info{
		DecisionID: e.DecisionID, Revision: e.Revision, Path: e.Entrypoint, Timestamp: e.Time,
		TraceID: e.TraceID, SpanID: e.SpanID,
		Custom: map[string]any{"request_id": e.RequestID, "outcome": string(e.Outcome)},
	}
	info.Bundles = make(map[string]server.BundleInfo, len(e.Bundles))
	for name, revision := range e.Bundles {
		info.Bundles[name] = server.BundleInfo{Revision: revision}
	}
	var err error
	if info.Input, err = decoded(e.Input); err != nil {
		return err
	}
	if info.Results, err = decoded(e.Decision); err != nil {
		return err
	}
	return storage.Txn(ctx, m.Store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		info.Txn = txn // for the drop and mask rules
		return plugin.Log(ctx, info)
	})
}

func decoded(raw []byte) (*any, error) {
	if raw == nil {
		return nil, nil // absent in the record, absent in OPA's
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	return &v, nil
}
