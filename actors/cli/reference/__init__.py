"""Reference pages, made from the code itself: settings, metrics, errors, run events, NATS, HTTP."""
