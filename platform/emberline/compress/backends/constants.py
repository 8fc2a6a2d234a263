"""Memory for the constants of AOTInductor packages that begins where kernels want it.

torch 2.13 lays weights out at multiples of 64 bytes, in one block from malloc; and a large block from malloc begins 16
bytes behind such a multiple. Every load of 64 bytes of weights then touches two cache lines. The program is told to ask
for aligned memory instead, of huge pages where the system has them to give.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emberline.compress.backends.replacing import replaced

# stands before the generated program, and so before torch's header that calls malloc
_ALLOCATION = """
#include <cstdlib>
#include <sys/mman.h>
namespace std {
inline void* ember_constants(size_t bytes) {
  constexpr size_t huge = size_t{2} << 20;
  void* memory = std::aligned_alloc(bytes < huge ? 64 : huge, bytes);
  if (memory && bytes >= huge) madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}
}
using std::ember_constants;
#define malloc(bytes) ember_constants(bytes)
#include <torch/csrc/inductor/aoti_runtime/model_base.h>
#undef malloc
"""


@contextmanager
def constants_aligned() -> Iterator[None]:
    """While compiling, every program gets its own allocation of constants."""
    from torch._inductor import codecache, config

    compiler: Any = codecache.AotCodeCompiler
    compile_program = compiler.compile

    def compile_aligned(graph: Any, wrapper_code: str, *args: Any, **kwargs: Any) -> Any:
        return compile_program(graph, _ALLOCATION + wrapper_code, *args, **kwargs)

    with (
        replaced(compiler, "compile", staticmethod(compile_aligned)),
        # a header that was compiled beforehand has torch's allocation in it
        config.patch({"aot_inductor.precompile_headers": False}),
    ):
        yield
