"""vLLM as an engine: the Engine protocol in the worker's process, a connector and a sampler of ours inside vLLM's.

The worker's process holds `engine`, what is asked of it; `book`, whose sequences are held and what a step means for
them; `core`, vLLM's EngineCore, requests in and steps out; `hub`, where vLLM's processes report what they moved;
and `buffers`, where KV lies. What they share with `inside`, which runs in vLLM's processes, are `notes`, what is said,
`geometry`, where each byte of a buffer lies, `draws`, what the sampler is told, and `device_notes`. Nothing depends on
the version of vLLM: `platform` names those that are known to work.
"""
