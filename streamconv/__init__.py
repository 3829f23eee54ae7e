"""streamconv: model checkpoints to what runtimes load, streamed, resumable, byte-identical with ggml."""
