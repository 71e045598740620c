"""What an OpenAI-compatible provider puts on the wire: bodies and events, no sockets.

Every builder takes the provider's name, so that a test can tell which provider answered.
"""

import base64
import email.policy
import json
import struct

CREATED = 1700000000
VECTOR = [0.25, -0.5, 1.0]
AUDIO = bytes(range(256)) * 64


def dumps(value):
    return json.dumps(value, ensure_ascii=False).encode()


def error(message, code="scripted"):
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": code}}


def anthropic_error(message, kind="scripted_error"):
    return {"type": "error", "error": {"type": kind, "message": message}}


def model_ids(name):
    """The last one is listed by no other provider."""
    return ["ok", "meta/llama-3", "mixed:7b", "only-at-" + name]


def models(name):
    return {"object": "list", "data": [
        {"id": model, "object": "model", "created": CREATED, "owned_by": name} for model in model_ids(name)]}


def words(name, asked):
    """The text that a provider answers with, cut as a stream cuts it."""
    return [name + ":"] + [" " + word for word in last_user_text(asked).split()]


def last_user_text(asked):
    texts = [m["content"] for m in asked.get("messages", []) if m.get("role") == "user"]
    if texts and isinstance(texts[-1], list):
        return " ".join(part["text"] for part in texts[-1] if part.get("type") == "text")
    return texts[-1] if texts else str(asked.get("input") or asked.get("prompt") or "")


TOOL_CALL = {"id": "call_1", "type": "function",
             "function": {"name": "weather", "arguments": "{\"city\":\"上海\"}"}}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def chat(name, asked):
    message = {"role": "assistant", "content": "".join(words(name, asked))}
    finish = "stop"
    if asked["model"] == "tool-calls":
        message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        finish = "tool_calls"
    return {"id": "chatcmpl-" + name, "object": "chat.completion", "created": CREATED,
            "model": asked["model"], "usage": USAGE,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}]}


def chat_events(name, asked):
    """One (event name, data) pair for each event of a streamed chat; `[DONE]` is left to the caller."""
    def chunk(delta, finish=None):
        return None, {"id": "chatcmpl-" + name, "object": "chat.completion.chunk", "created": CREATED,
                      "model": asked["model"],
                      "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if asked["model"] == "tool-calls":
        call = {"index": 0, **TOOL_CALL}
        arguments = TOOL_CALL["function"]["arguments"]
        events = [chunk({"role": "assistant", "tool_calls": [
            {**call, "function": {"name": "weather", "arguments": ""}}]})]
        events += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                   for piece in (arguments[:4], arguments[4:])]
        events.append(chunk({}, "tool_calls"))
    else:
        events = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"content": word}) for word in words(name, asked)]
        events.append(chunk({}, "stop"))
    if (asked.get("stream_options") or {}).get("include_usage"):
        _, last = chunk({})
        events.append((None, {**last, "choices": [], "usage": USAGE}))
    return events


def completion(name, asked):
    return {"id": "cmpl-" + name, "object": "text_completion", "created": CREATED, "model": asked["model"],
            "usage": USAGE, "choices": [
                {"index": 0, "text": "".join(words(name, asked)), "finish_reason": "stop", "logprobs": None}]}


def response(name, asked, status="completed"):
    text = "".join(words(name, asked))
    return {"id": "resp_" + name, "object": "response", "created_at": CREATED, "status": status,
            "model": asked["model"], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "output": [] if status != "completed" else [
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": text, "annotations": []}]}]}


def response_events(name, asked):
    events = [{"type": "response.created", "response": response(name, asked, "in_progress")}]
    events += [{"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
                "content_index": 0, "delta": word} for word in words(name, asked)]
    events.append({"type": "response.completed", "response": response(name, asked)})
    return [(event["type"], {**event, "sequence_number": at}) for at, event in enumerate(events)]


TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "上海"}}
ANTHROPIC_USAGE = {"input_tokens": 5, "output_tokens": 7}


def message(name, asked):
    content, stop = [{"type": "text", "text": "".join(words(name, asked))}], "end_turn"
    if asked["model"] == "tool-calls":
        content, stop = [TOOL_USE], "tool_use"
    return {"id": "msg_" + name, "type": "message", "role": "assistant", "model": asked["model"],
            "content": content, "stop_reason": stop, "stop_sequence": None, "usage": ANTHROPIC_USAGE}


def message_events(name, asked):
    whole = message(name, asked)
    if asked["model"] == "tool-calls":
        start = {**TOOL_USE, "input": {}}
        arguments = json.dumps(TOOL_USE["input"], ensure_ascii=False)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in (arguments[:4], arguments[4:])]
    else:
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in words(name, asked)]
    events = [{"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
              {"type": "content_block_start", "index": 0, "content_block": start}]
    events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    events += [{"type": "content_block_stop", "index": 0},
               {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
                "usage": ANTHROPIC_USAGE},
               {"type": "message_stop"}]
    return [(event["type"], event) for event in events]


def token_count(name, asked):
    return {"input_tokens": ANTHROPIC_USAGE["input_tokens"]}


def embeddings(name, asked):
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    vector = VECTOR
    # Both clients ask for base64 unless told otherwise, and decode it themselves.
    if asked.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<%df" % len(VECTOR), *VECTOR)).decode()
    return {"object": "list", "model": asked["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3},
            "data": [{"object": "embedding", "index": at, "embedding": vector} for at in range(len(inputs))]}


def moderation(name, asked):
    return {"id": "modr-" + name, "model": asked["model"], "results": [
        {"flagged": False, "categories": {}, "category_scores": {}}]}


def stored_response(name, method, path):
    """Status and answer to a call below /v1/responses/."""
    own = "/v1/responses/resp_" + name
    answers = {
        ("GET", own): response(name, {"model": "ok", "input": "stored"}),
        ("GET", own + "/input_items"): {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False},
        ("DELETE", own): {"id": "resp_" + name, "object": "response", "deleted": True},
        ("POST", own + "/cancel"): response(name, {"model": "ok"}, "cancelled"),
    }
    found = answers.get((method, path))
    return (200, found) if found else (404, error("%s has no %s" % (name, path), "not_found"))


def form(content_type, body):
    """A form as Python's own parser of MIME reads it: text fields as strings, files as name and bytes."""
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body,
                                       policy=email.policy.HTTP)
    asked = {}
    for part in message.iter_parts():
        value = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        asked[name] = (part.get_filename(), value) if part.get_filename() else value.decode()
    asked["stream"] = asked.get("stream") == "true"
    return asked


def transcription(name, asked):
    filename, content = asked["file"]
    return {"text": "%s: %s, %d bytes" % (name, filename, len(content))}


def transcription_events(name, asked):
    text = transcription(name, asked)["text"]
    events = [{"type": "transcript.text.delta", "delta": word} for word in (text[:5], text[5:])]
    events.append({"type": "transcript.text.done", "text": text})
    return [(event["type"], event) for event in events]


def edited_image(name, asked):
    image_name, content = asked["image"]
    text = "%s: %s, %d bytes, %s" % (name, image_name, len(content), asked.get("prompt"))
    return {"created": CREATED, "data": [{"b64_json": base64.b64encode(text.encode()).decode()}]}


def image(name, asked):
    return {"created": CREATED, "data": [{"b64_json": base64.b64encode(name.encode()).decode()}]}


WHOLE = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/audio/transcriptions": transcription,
    "/v1/audio/translations": transcription,
    "/v1/images/edits": edited_image,
    "/v1/images/variations": edited_image,
    "/v1/embeddings": embeddings,
    "/v1/images/generations": image,
    "/v1/messages": message,
    "/v1/messages/count_tokens": token_count,
    "/v1/moderations": moderation,
    "/v1/responses": response,
}
STREAMED = {
    "/v1/audio/transcriptions": transcription_events,
    "/v1/chat/completions": chat_events,
    "/v1/messages": message_events,
    "/v1/responses": response_events,
}
