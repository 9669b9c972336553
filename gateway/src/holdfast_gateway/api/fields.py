"""The fields of a body that are not the client's to say: taken out, or refused with a reason.

Looked for in every request class of vLLM 0.32 and smg 1.13 that is reachable from our routes.
docs/capabilities/api.md lists them; what is in no list here passes.
"""

from typing import Any

from holdfast_gateway.api.endpoints import ENDPOINTS, MESSAGES, RESPONSES
from holdfast_gateway.api.errors import ApiError, invalid

# Fields by which the serving side is steered from inside the site. vLLM or smg would obey them.
INTERNAL_FIELDS = frozenset(
    {
        "priority",  # vLLM's scheduler: jump the queue
        "cache_salt",  # vLLM's prefix cache: read whether others sent a prompt
        "kv_transfer_params",  # vLLM: fetch KV blocks from an address
        "ec_transfer_params",  # the same for encoder outputs
        "vllm_xargs",  # vLLM: reaches whatever extension the site has loaded
        "request_id",  # vLLM: collide with another request
        "session_id",  # vLLM: collide with another session
        "data_parallel_rank",  # choose the replica
        "stream_interval",  # vLLM: hold tokens back, so that no deadline can be kept
        "watermarking",  # vLLM: switch off the site's watermark
        "routed_experts_prompt_start",  # vLLM: dump what the router of experts did
        "mm_payload",  # vLLM, for its render routes only
        "return_mm_kwargs",
        "extra_body",  # the openai client unpacks it; in a body it could only confuse
        "rid",  # request_id in smg's dialect
        "bootstrap_host",  # smg: address of a prefill worker
        "bootstrap_port",
        "bootstrap_room",
        "lora_path",  # smg: load an adapter from a path
        "session_params",
        "extra_key",  # smg: cache_salt in another dialect
        "routed_dp_rank",
        "return_hidden_states",
        "custom_logit_processor",  # smg: pickled code, for another engine
    }
)

_CODE = "code that runs on the server comes with the site, not with a request"
_LOADED = "the server would load what a stranger wrote"
_FETCHED = "media are sent in the body, as a data: URL or base64, not by address"
_SHARED = "it would show a picture that somebody else sent, out of a cache that all share"
_STATELESS = "nothing is kept between requests here; send the whole conversation as 'input'"
_TOOL_SERVER = "models here reach no other server; run the tool yourself and send its result"

# Refused rather than taken out: without it the answer would not be the one that was asked for.
_REFUSED: dict[str, str] = {
    "chat_template": _CODE,
    "logits_processors": _CODE,
    "prompt_embeds": _LOADED,
    "mm_processor_kwargs": "they change how much memory an input takes",
    "media_io_kwargs": "they change how much memory an input takes",
    "use_beam_search": "it works on more tokens than it counts",
}
_REFUSED_AT: dict[str, dict[str, str]] = {
    RESPONSES: {
        "background": _STATELESS,
        "previous_response_id": _STATELESS,
        "conversation": _STATELESS,
        "prompt": _STATELESS,
    },
    MESSAGES: {"mcp_servers": _TOOL_SERVER, "container": _TOOL_SERVER},
}
_REFUSED_BY_ENDPOINT = {path: _REFUSED | _REFUSED_AT.get(path, {}) for path in ENDPOINTS}
_TEMPLATE_OPTIONS = "chat_template_kwargs"
_TOOLS = {"function", "custom", "namespace"}  # those that the client runs
_EMBEDDED = {"prompt_embeds", "image_embeds", "audio_embeds", "video_embeds"}
_MEDIA = {"image_url", "video_url", "audio_url", "input_audio", "file_url", "file_id", "file"}
_INPUTS = ("messages", "input", "prompt", "system")
_SUSPECT = _EMBEDDED | _MEDIA | {"source", "uuid"}
_CONTENTS = ("content", "output")
_DEEPEST_CONTENT = 8


def check(endpoint: str, request: dict[str, Any]) -> None:  # Any: JSON of a stranger
    """Raise ApiError 400 for what is refused, take out what is internal."""
    refused = _REFUSED_BY_ENDPOINT[endpoint]
    for field in refused.keys() & request.keys():
        if request[field] not in (None, False):
            raise _refused(field, refused[field])
    options = request.get(_TEMPLATE_OPTIONS)
    if isinstance(options, dict) and "chat_template" in options:
        raise _refused(f"{_TEMPLATE_OPTIONS}.chat_template", _CODE)
    for field in INTERNAL_FIELDS & request.keys():
        del request[field]
    for field in _INPUTS:
        if field in request:
            _check_media(field, request[field])
    if endpoint == RESPONSES:
        _check_tools(request)
        request["store"] = False  # by default it is kept, for whoever knows its id


def _check_media(field: str, value: object) -> None:
    """Refuse media that a server would fetch, and tensors it would load.

    A replica stands inside the site: an address in a prompt would be asked for from there.
    """
    found = _search(value, _DEEPEST_CONTENT)
    if found is not None:
        at, reason = found
        raise _refused(field + at, reason)


def _check_tools(request: dict[str, Any]) -> None:  # Any: JSON of a stranger
    tools = request.get("tools")
    for at, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in _TOOLS:
            raise _refused(f"tools[{at}].type", _TOOL_SERVER)


def _search(value: object, depth: int) -> tuple[str, str] | None:
    """Return where in messages and the parts of their contents something is refused, and why.

    A tool's arguments are not searched: what looks like an address there is nobody's to fetch.
    """
    if isinstance(value, dict):  # computer_call_output: one object
        return _judge(value)
    if not isinstance(value, list):
        return None
    if not depth:
        return "", "it is nested too deeply"
    for at, each in enumerate(value):
        if not isinstance(each, dict):
            continue
        found = _judge(each)
        if found is not None:
            return f"[{at}]{found[0]}", found[1]
        for inner in _CONTENTS:
            if inner in each and not isinstance(each[inner], str):
                found = _search(each[inner], depth - 1)
                if found is not None:
                    return f"[{at}].{inner}{found[0]}", found[1]
    return None


def _judge(part: dict[str, Any]) -> tuple[str, str] | None:  # Any: JSON of a stranger
    kind = part.get("type")
    typed = isinstance(kind, str) and kind in _EMBEDDED
    if not typed and _SUSPECT.isdisjoint(part):
        return None
    if typed or not _EMBEDDED.isdisjoint(part):
        return "", _LOADED
    if part.get("uuid") is not None:
        return ".uuid", _SHARED
    for key in _MEDIA & part.keys():
        if not _inline(part[key]):
            return f".{key}", _FETCHED
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") not in (None, "base64", "text", "content"):
        return ".source", _FETCHED
    return None


def _inline(media: object) -> bool:
    """Tell whether media come in the body: a data URL, bytes in base64, or nothing."""
    if isinstance(media, dict):
        if {"url", "file_id", "file_url"} & media.keys() == {"url"}:
            media = media["url"]
        else:  # input_audio, file: the bytes themselves
            return bool({"data", "file_data"} & media.keys()) and "file_id" not in media
    return media is None or (isinstance(media, str) and media[:5].lower() == "data:")


def _refused(field: str, reason: str) -> ApiError:
    return invalid(
        f"'{field}' is not taken here: {reason}.", code="unsupported_parameter", param=field
    )
