"""Training a head model: registered scans, anchors, first codes, the auto-decoder."""
