"""What runs inside vLLM's processes, which import it by name: the KV connector and the sampler.

`connector` is built twice. In EngineCore it is `scheduling`, which decides what moves; in every rank it is `rank`,
which moves it, by `moving`, between vLLM's blocks, as `tensors` finds them, and the arena. `line` speaks to the
worker, `watch` ends the process with it. `device_rank` serves the worker where buffers stay on a device. `sampler` is
built by vLLM's model runner; `batch` follows its batch, `rows` one request, `languages` compiles what it must write.
"""
