# The types of the cffi module that native/ffi builds from native/include/polytls/native.h. What native.h
# calls `T *` is `CData` here: cffi objects have no static shape. The manual is native.h.
from collections.abc import Callable
from typing import Any, TypeAlias

CData: TypeAlias = Any

class _Buffer:
    def __getitem__(self, index: slice) -> bytes: ...

class _FFI:
    NULL: CData
    def new(self, cdecl: str | CData, init: object = ...) -> CData: ...
    def typeof(self, cdecl: str) -> CData: ...
    def gc(self, cdata: CData, destructor: Callable[[CData], None] | None, size: int = ...) -> CData: ...
    def string(self, cdata: CData, maxlen: int = ...) -> bytes: ...
    def buffer(self, cdata: CData, size: int = ...) -> _Buffer: ...
    def unpack(self, cdata: CData, length: int) -> bytes: ...
    def cast(self, cdecl: str, value: object) -> CData: ...
    def from_buffer(self, cdecl: str | CData, python_buffer: object = ...) -> CData: ...
    def memmove(self, dest: object, src: object, n: int) -> None: ...
    def def_extern(
        self, name: str = ..., error: object = ...
    ) -> Callable[[Callable[..., int]], Callable[..., int]]: ...

class _Lib:
    PTL_ABI_VERSION: int

    PTL_OK: int
    PTL_E_CANCELLED: int
    PTL_E_TIMEOUT: int
    PTL_E_STALE: int
    PTL_E_BUSY: int
    PTL_E_INVALID: int
    PTL_E_NOMEM: int
    PTL_E_SHUTDOWN: int
    PTL_E_CLOSED: int
    PTL_E_RESET: int
    PTL_E_IO: int
    PTL_E_REFUSED: int
    PTL_E_UNREACHABLE: int
    PTL_E_TOO_LARGE: int
    PTL_E_MALFORMED: int
    PTL_E_NOT_TLS: int
    PTL_E_ALERT: int
    PTL_E_VERIFY: int
    PTL_E_TLS_VERSION: int
    PTL_E_TLS_SHARED: int
    PTL_E_ALPN: int
    PTL_E_KEY_USAGE: int
    PTL_E_TLS: int
    PTL_E_IDLE: int
    PTL_E_LIFETIME: int
    PTL_E_CHOICE: int
    PTL_E_ECH_REJECTED: int
    PTL_E_ECH_UNUSABLE: int
    PTL_E_UNEXPECTED: int
    PTL_E_NO_SOCKET: int

    PTL_OP_ACCEPT: int
    PTL_OP_READ_HEAD: int
    PTL_OP_PEEK_HELLO: int
    PTL_OP_READ: int
    PTL_OP_WRITE: int
    PTL_OP_CONNECT: int
    PTL_OP_CONNECT_TLS: int
    PTL_OP_ACCEPT_TLS: int
    PTL_OP_RELAY: int
    PTL_OP_CLOSE: int
    PTL_FLAG_LINK: int
    PTL_FLAG_RAW: int
    PTL_FLAG_RESET: int
    PTL_FLAG_QUIET: int
    PTL_EXPECT_HELLO: int
    PTL_EXPECT_ECDSA: int
    PTL_STREAM_CONNECTED: int
    PTL_SIDE_OTHER: int
    PTL_VERIFY_CHAIN: int
    PTL_VERIFY_HOST: int

    polytls_decompress: CData

    def ptl_abi_version(self) -> int: ...
    def ptl_versions(self) -> CData: ...
    def ptl_status_name(self, status: int) -> CData: ...
    def ptl_trust_new(
        self,
        der: CData,
        der_lens: CData,
        num_der: int,
        cache_ms: int,
        cache_max: int,
        out_num_added: CData,
        err: CData,
        err_len: int,
    ) -> CData: ...
    def ptl_trust_free(self, trust: CData) -> None: ...
    def ptl_credential_new(
        self,
        chain: CData,
        chain_lens: CData,
        num_chain: int,
        key: CData,
        key_len: int,
        err: CData,
        err_len: int,
    ) -> CData: ...
    def ptl_credential_free(self, credential: CData) -> None: ...
    def ptl_client_context_new(
        self, hello: CData, trust: CData, verify: int, err: CData, err_len: int
    ) -> CData: ...
    def ptl_client_context_free(self, context: CData) -> None: ...
    def ptl_server_context_new(self, err: CData, err_len: int) -> CData: ...
    def ptl_server_context_free(self, context: CData) -> None: ...
    def ptl_set_decompressor(self, decompress: CData) -> None: ...
    def ptl_engine_new(self, num_loops: int, max_streams: int, err: CData, err_len: int) -> CData: ...
    def ptl_engine_stop(self, engine: CData) -> None: ...
    def ptl_engine_free(self, engine: CData) -> None: ...
    def ptl_engine_eventfd(self, engine: CData) -> int: ...
    def ptl_engine_num_loops(self, engine: CData) -> int: ...
    def ptl_listen(
        self,
        engine: CData,
        ip: bytes,
        port: int,
        backlog: int,
        head_max: int,
        head_ms: int,
        tag: int,
        out_listener: CData,
        out_port: CData,
        out_errno: CData,
    ) -> int: ...
    def ptl_listen_on(
        self,
        engine: CData,
        fd: int,
        head_max: int,
        head_ms: int,
        tag: int,
        out_listener: CData,
        out_errno: CData,
    ) -> int: ...
    def ptl_unlisten(self, engine: CData, listener: int) -> None: ...
    def ptl_submit(self, engine: CData, ops: CData, num_ops: int) -> int: ...
    def ptl_cancel(self, engine: CData, stream: int, tag: int) -> None: ...
    def ptl_drain(self, engine: CData, out: CData, num: int) -> int: ...
    def ptl_release(self, completions: CData, num: int) -> None: ...
    def ptl_engine_stats(self, engine: CData, out: CData) -> None: ...

ffi: _FFI
lib: _Lib
