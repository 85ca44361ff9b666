"""The policy engine that produced each decision: model, bundles, evaluation, history, replay."""
