"""What the simulator's vendors do: the shapes of answers that upstreams have been seen to send."""

from __future__ import annotations

import json
from typing import Any

from aitask_cli.simulator.shapes import (
    DONE,
    HELLO,
    STOP,
    USAGE,
    WHOLE,
    Shape,
    body,
    chunk,
    event,
    head,
    streamed,
    whole,
)


def _ended(finish: str, text: str = "Hello wor") -> Shape:
    return streamed(f"a stream that ends with finish_reason {finish}", chunk(text), chunk(finish=finish), DONE)


def _error(meaning: str, said: Any) -> Shape:
    return streamed(f"{meaning}, in a stream under HTTP 200", chunk("Hello"), event(said), DONE)


_OVERLOADED = "the engine is overloaded"

ENDINGS: dict[str, Shape] = {
    **{
        f"finish-{name.lower().replace('_', '-')}": _ended(name)
        for name in (
            "error",
            "abort",
            "network_error",
            "insufficient_system_resource",
            "other",
            "SAFETY",
            "RECITATION",
            "PROHIBITED_CONTENT",
            "BLOCKLIST",
            "SPII",
            "sensitive",
            "content_filter",
        )
    },
    "length": _ended("length"),
    "max-tokens": _ended("MAX_TOKENS"),
    "eos": _ended("eos", WHOLE),
    "end-turn": _ended("end_turn", WHOLE),
    "emptyfinish": streamed('a cut stream with finish_reason "" in each piece', chunk("Hello", ""), chunk(" wor", "")),
    "nullfinish": streamed('a cut stream with finish_reason "null"', chunk("Hello", "null"), chunk(" wor", "null")),
    "prohibited": streamed("a block without any text", chunk(finish="PROHIBITED_CONTENT"), DONE),
    "refusalfield": streamed(
        "a refusal in its own field",
        chunk(refusal="I can't assist "),
        chunk(refusal="with that."),
        chunk(finish="stop"),
        DONE,
    ),
    "refusalwhole": body("a refusal in its own field, whole", whole(None, refusal="I can't assist with that.")),
    "thoughtsonly": streamed("thoughts and no answer", chunk(reasoning_content="Let me"), chunk(finish="length"), DONE),
    "blank": streamed("white space instead of an answer", chunk("  \n"), STOP, DONE),
    "doubled": streamed("a last frame that repeats the whole message", HELLO, whole(usage=USAGE), DONE),
    "doubleddelta": streamed(
        "the same beside an empty delta",
        HELLO,
        {"choices": [{"index": 0, "delta": {}, "message": {"content": WHOLE}, "finish_reason": "stop"}]},
        DONE,
    ),
    "toolcall": streamed(
        "a tool call nobody asked for",
        chunk(tool_calls=[{"index": 0, "id": "1", "type": "function"}]),
        chunk(finish="tool_calls"),
        DONE,
    ),
}

ERRORS: dict[str, Shape] = {
    "err-object": _error(
        "vLLM's error", {"object": "error", "message": _OVERLOADED, "type": "InternalServerError", "code": 500}
    ),
    "err-type": _error("type: error", {"type": "error", "error": {"type": "overloaded_error", "message": _OVERLOADED}}),
    "err-server": _error(
        "OpenAI's own error", {"error": {"type": "server_error", "code": None, "message": _OVERLOADED}}
    ),
    "err-string": _error("an error that is text", {"error": _OVERLOADED}),
    "err-field": Shape(
        "llama.cpp's `error:` field",
        (
            head(),
            event(chunk("Hello")),
            b'error: {"code":500,"message":"the engine failed","type":"server_error"}\n\n',
            DONE,
        ),
    ),
    "err-event": Shape(
        "an `event: error`", (head(), event(chunk("Hello")), event({"message": _OVERLOADED, "code": 503}, "error"))
    ),
    "err-unframed": Shape(
        "bare JSON under text/event-stream", (head(), b'{"error":{"code":503,"message":"the engine is overloaded"}}')
    ),
    "err-array": body("Gemini's array", [{"error": {"code": 503, "message": _OVERLOADED, "status": "UNAVAILABLE"}}]),
    "err-codemessage": body("code and message", {"code": 50505, "message": "the engine is overloaded", "data": None}),
    "err-success": body("success: false", {"success": False, "message": _OVERLOADED, "code": "ServiceUnavailable"}),
    "err-baidu": body("error_code and error_msg", {"error_code": 336100, "error_msg": _OVERLOADED}),
    "err-detail": body("FastAPI's detail", {"detail": _OVERLOADED}),
    "err-minimax": body(
        "MiniMax's base_resp", {"choices": None, "base_resp": {"status_code": 1000, "status_msg": _OVERLOADED}}
    ),
    "err-html": Shape("a page under text/event-stream", (head(), b"<!doctype html><title>Sign in</title>")),
}

WIRE: dict[str, Shape] = {
    "bom": Shape("a byte order mark first", (head(), b"\xef\xbb\xbf", HELLO, STOP, DONE)),
    "ping": streamed(
        "empty and non-JSON events between",
        b"data:\n\n",
        HELLO,
        event("[PING]"),
        event("null"),
        b"event: keepalive\ndata: \n\n",
        STOP,
        DONE,
    ),
    "idfirst": Shape("id, event and retry first", (head(), b"retry: 100\nid: 1\nevent: message\n" + HELLO, STOP, DONE)),
    "commentfirst": Shape(
        "a stream labelled as JSON that begins with a comment",
        (head(200, "application/json"), b": PROCESSING\n\n", HELLO, STOP, DONE),
    ),
    "nolabel": Shape("a stream without a label", (head(200, None), HELLO, STOP, DONE)),
    "textlabel": Shape(
        "a stream labelled text/plain that begins with event:",
        (head(200, "text/plain"), b"event: message\n", HELLO, STOP, DONE),
    ),
    "jsonlabelled": Shape("a whole answer labelled as a stream", (head(), json.dumps(whole()).encode())),
    "cutlabelled": Shape("a cut stream labelled as JSON", (head(200, "application/json"), HELLO)),
    "wrongcharset": body(
        "UTF-8 labelled otherwise", whole("Hello w\u00f6rld"), 200, "application/json; charset=iso-8859-1"
    ),
    "nocharset": body("a charset that does not exist", whole(), 200, "application/json; charset=undefined"),
    "hexcharset": body("a charset that is no text's", whole(), 200, "application/json; charset=hex"),
    "created": body("HTTP 201 with an answer", whole(), 201),
    "nonauthoritative": body("HTTP 203 with an answer", whole(), 203),
    "bighead": body("a header of 60 KB", whole(), 200, "application/json", X_Debug="x" * 60_000),
    "doneless": streamed("finish_reason, then an open connection", HELLO, STOP, hold_s=30.0),
    "split": Shape("every byte by itself", (head(), *(bytes([byte]) for byte in HELLO + STOP + DONE))),
    "crlf": Shape("lines that end with CRLF", (head(), (HELLO + STOP + DONE).replace(b"\n", b"\r\n"))),
    "brotli": body(
        "brotli, which nobody asked for", b"\x0b\x02\x80hello\x03", 200, "application/json", Content_Encoding="br"
    ),
}

TOKENS: dict[str, Shape] = {
    "usage-groq": streamed("usage under x_groq", HELLO, {**chunk(finish="stop"), "x_groq": {"usage": USAGE}}, DONE),
    "usage-float": streamed(
        "usage as floats",
        HELLO,
        {**chunk(finish="stop"), "usage": {"prompt_tokens": 7.0, "completion_tokens": 3.0}},
        DONE,
    ),
    "usage-names": streamed(
        "usage by other names", HELLO, {**chunk(finish="stop"), "usage": {"input_tokens": 7, "output_tokens": 3}}, DONE
    ),
    "usage-grows": streamed(
        "usage that grows",
        {**chunk("Hello "), "usage": {"prompt_tokens": 7, "completion_tokens": 1}},
        {**chunk("world", "stop"), "usage": USAGE},
        DONE,
    ),
}

THOUGHTS: dict[str, Shape] = {
    "parts": body(
        "content and thoughts as parts",
        whole(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]},
                {"type": "text", "text": WHOLE},
            ]
        ),
    ),
    "details": streamed(
        "reasoning_details",
        chunk(reasoning_details=[{"type": "reasoning.text", "text": "Let me think."}]),
        HELLO,
        STOP,
        DONE,
    ),
    "reasoningfield": streamed("a field called reasoning", chunk(reasoning="Let me think."), HELLO, STOP, DONE),
}

REFUSED: dict[str, Shape] = {
    "ctx-llama": body(
        "llama.cpp's overflow",
        {
            "error": {
                "code": 500,
                "message": "the request exceeds the available context size. try increasing the context size",
                "type": "server_error",
            }
        },
        500,
    ),
    "ctx-gemini": body(
        "Gemini's overflow",
        {
            "error": {
                "code": 400,
                "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                "status": "INVALID_ARGUMENT",
            }
        },
        400,
    ),
    "ctx-vllm": body(
        "vLLM's overflow",
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
            "code": 400,
        },
        400,
    ),
    "quota": body(
        "a quota that is used up",
        {
            "error": {
                "code": "insufficient_quota",
                "type": "insufficient_quota",
                "message": "You exceeded your current quota, please check your plan and billing details.",
            }
        },
        429,
    ),
    "toolarge": body(
        "a request that no minute's limit lets through",
        {
            "error": {
                "code": "rate_limit_exceeded",
                "type": "tokens",
                "message": "Request too large for this model: Limit 6000, Requested 9000",
            }
        },
        429,
    ),
    "upstreamword": body(
        "a 400 that mentions an upstream",
        {"error": {"message": "upstream rejected the request", "type": "invalid_request_error"}},
        400,
    ),
    "gone": body(
        "a model that does not exist",
        {
            "error": {
                "message": "The model `x` does not exist",
                "code": "model_not_found",
                "type": "invalid_request_error",
            }
        },
        404,
    ),
    "retired": body(
        "a model that was switched off",
        {"error": {"message": "The model `x` has been deprecated", "code": "model_not_found"}},
        410,
    ),
    "signin": body("a way to a sign-in page", b"", 302, None, Location="https://accounts.example.org/signin"),
}

STREAMLESS: dict[str, Shape] = {
    "streamparam": Shape(
        "refuses stream_options by `param`",
        body("", {"error": {"message": "Unknown parameter", "param": "stream_options"}}, 400).parts,
        plain=body("", whole()).parts,
    ),
}

SHAPES: dict[str, Shape] = {**ENDINGS, **ERRORS, **WIRE, **TOKENS, **THOUGHTS, **REFUSED, **STREAMLESS}


def meanings() -> dict[str, str]:
    """What each shape is, by its name."""
    return {name: shape.meaning for name, shape in SHAPES.items()}
