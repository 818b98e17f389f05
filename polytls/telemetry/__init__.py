"""Where events go: sinks for `polytls.events`. Only `polytls.program` connects them, so that what is not
configured is not imported. `log` writes one line a tunnel."""
