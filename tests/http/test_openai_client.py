"""The official client, on the fake engine and on the real one."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.http.server_process import ServerProcess

MESSAGES = [{"role": "user", "content": "def add(a, b):"}]


@pytest.fixture(scope="module")
def client(any_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=any_server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def test_models(client: openai.OpenAI, model: str) -> None:
    found = client.models.retrieve(model)
    assert found.id == model
    assert found.model_dump()["max_model_len"] > 0


def test_completion(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="def add(a, b):", max_tokens=6, temperature=0)
    choice = answer.choices[0]
    assert choice.text
    assert choice.finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None


def test_a_chat_streams_what_it_answers(client: openai.OpenAI, model: str) -> None:
    wanted = {"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**wanted)
    chunks = list(client.chat.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_completion_streams_what_it_answers(client: openai.OpenAI, model: str) -> None:
    wanted = {"model": model, "prompt": "import os\n", "max_tokens": 12, "temperature": 0, "logprobs": 2}
    whole = client.completions.create(**wanted)
    chunks = list(client.completions.create(**wanted, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    for field in ("tokens", "text_offset"):
        streamed = [value for c in chunks for value in getattr(c.choices[0].logprobs, field)]
        assert streamed == getattr(whole.choices[0].logprobs, field)


def test_same_seed_same_text(client: openai.OpenAI, model: str) -> None:
    wanted = {"model": model, "prompt": "for i in range(", "max_tokens": 12, "temperature": 1.0}
    first, second = (client.completions.create(**wanted, seed=7).choices[0].text for _ in range(2))
    assert first == second


def test_n_choices_differ_in_their_seed(client: openai.OpenAI, model: str) -> None:
    wanted = {"model": model, "prompt": "for i in range(", "max_tokens": 12, "temperature": 1.0}
    answer = client.completions.create(**wanted, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.text for choice in answer.choices}) > 1
    assert answer.choices[1].text == client.completions.create(**wanted, seed=8).choices[0].text


def test_streamed_choices_of_several_prompts_are_those_of_each(client: openai.OpenAI, model: str) -> None:
    prompts = ["class Foo:\n", "return self."]
    wanted = {"model": model, "max_tokens": 10, "temperature": 0, "n": 2}
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**wanted, prompt=prompts, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    for i, prompt in enumerate(prompts):
        alone = client.completions.create(**wanted, prompt=prompt)
        assert [choice.text for choice in alone.choices] == [texts[2 * i], texts[2 * i + 1]]


def test_chat_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=5, temperature=0, logprobs=True, top_logprobs=20
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 20
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.top_logprobs == sorted(token.top_logprobs, key=lambda t: -t.logprob)
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token


def test_completion_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="import sys", max_tokens=5, temperature=0, logprobs=3)
    choice = answer.choices[0]
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    assert logprobs.text_offset[0] == 0
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert choice.text[offset:].startswith(token) or token.startswith(("bytes:", "<|"))
    assert all(token in top for token, top in zip(logprobs.tokens, logprobs.top_logprobs, strict=True))


def test_stop_strings_are_cut_off(client: openai.OpenAI, model: str) -> None:
    wanted = {"model": model, "prompt": "def add(a, b):\n    return", "max_tokens": 16, "temperature": 0}
    text = client.completions.create(**wanted).choices[0].text
    stop = text[4:7]
    expected = text[: text.index(stop)]
    stopped = client.completions.create(**wanted, stop=["never in there", stop]).choices[0]
    assert stopped.text == expected
    assert stopped.finish_reason == "stop"
    assert stopped.stop_reason == stop
    streamed = client.completions.create(**wanted, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected
    kept = client.completions.create(**wanted, stop=stop, extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].text == expected + stop


def test_a_second_prompt_is_cached(client: openai.OpenAI, model: str) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 4
    wanted = {"model": model, "prompt": prompt, "max_tokens": 1, "extra_body": {"cache_salt": "this test"}}
    first, second = (client.completions.create(**wanted).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert 0 < second.prompt_tokens_details.cached_tokens < second.prompt_tokens


def test_unknown_model(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError, match=model) as e:
        client.chat.completions.create(model="gpt-99", messages=MESSAGES)
    assert e.value.code == "model_not_found"
    assert e.value.param == "model"


def test_out_of_range(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature") as e:
        client.chat.completions.create(model=model, messages=MESSAGES, temperature=3.0)
    assert e.value.param == "temperature"


def test_many_concurrent_streams(any_server: ServerProcess, model: str) -> None:
    """Each gets its own text, as if it were alone."""

    async def all_of_them() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(base_url=any_server.url + "/v1", api_key="none", max_retries=0) as client:

            async def one(i: int) -> str:
                text = ""
                prompt = f"item number {i} of {'many ' * (i % 7)}"
                stream = await client.completions.create(
                    model=model, prompt=prompt, max_tokens=16, temperature=0, stream=True
                )
                async for chunk in stream:
                    text += chunk.choices[0].text
                return text

            alone = [await one(i) for i in range(8)]
            return alone, await asyncio.gather(*(one(i % 8) for i in range(64)))

    alone, together = asyncio.run(all_of_them())
    assert together == alone * 8
