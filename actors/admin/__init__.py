"""The operations of operators: under `/admin` over HTTP, and under `orchestra.admin.` over NATS."""
