"""Plan, chunks, threads, commit: moves rows into their final place without knowing what they mean."""
