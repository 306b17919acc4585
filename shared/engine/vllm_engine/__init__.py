"""vLLM as an engine: the Engine protocol in the worker's process, a KV connector of ours inside vLLM's processes.

The worker's process holds `engine` (sequences and their answers), `core` (vLLM's EngineCore, its requests in and its
steps out) and `hub` (the connectors' notes). In vLLM's processes `connector` is built twice: in EngineCore as
`scheduling`, which decides what moves, and in every rank as `rank`, which moves it between vLLM's blocks and the
worker's staging arena, which each rank maps. `sampler` draws there, as the torch engine draws. `notes` is what they
tell each other, `geometry` where each byte of a buffer lies. What differs between versions of vLLM is in `versions`.
"""
