"""The running host: configuration, assembly, listeners, workers."""
