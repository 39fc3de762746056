"""Where the judge answers: any endpoint that speaks the OpenAI chat completions interface."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from airflow_provider_kitops.oci.errors import Forbidden, InvalidInput, JudgeUnavailable, KitopsError, Unauthorized

if TYPE_CHECKING:
    import openai

    from airflow_provider_kitops.judge.config import JudgeConfig

#: One chat message: role and content.
Message = tuple[str, str]

_LONGEST_WAIT = 60.0
_IMPOSSIBLE = -9999.0
_UNREADABLE = "gave an answer that cannot be read"
# What is kept of an answer. Endpoints are asked for one letter with some twenty alternatives, but need not heed it.
_MOST_CHARACTERS, _MOST_POSITIONS, _MOST_ALTERNATIVES, _LONGEST_TOKEN = 4096, 16, 100, 200
# Every number below it is exact in JSON, and in the sums that the cost is made of.
_MOST_TOKENS = 2**53
_backoff = wait_random_exponential(multiplier=0.5, max=20)


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    :param base_url: up to and including ``/v1``.
    :param model: the name by which it knows the judge; empty takes the one of the judge's configuration.
    :param api_key: sent as bearer token; empty for endpoints that want none.
    :param model_digest: of the judge's weights, where they are known (a local file).
    :param parallel: requests that it works on at a time, where that is known; more would only disturb its caches.
    :raises InvalidInput: no http(s) URL, or one that holds credentials.
    """

    base_url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    model_digest: str = ""
    parallel: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput("The judge's endpoint must be an http or https URL such as http://127.0.0.1:8080/v1.")
        if parts.username or parts.password or parts.query:
            raise InvalidInput(
                f"The URL of the judge's endpoint at {parts.hostname} holds credentials or a query.",
                hint="Give the key as api_key.",
            )

    @property
    def host(self) -> str:
        """Who answers, for reports: host and port; on loopback without the port, which means nothing there."""
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        return host if self.is_loopback or not parts.port else f"{host}:{parts.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True)
class Completion:
    """What the judge said.

    :param text: the answer, cut if it is long.
    :param tokens: for each of its tokens the alternatives and their log-probabilities; empty if none were given.
        The token that was chosen comes first.
    """

    text: str
    tokens: tuple[tuple[tuple[str, float], ...], ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0


class CallFailed(KitopsError):
    """One request got no usable answer, while others may.

    :param passing: whether the endpoint, rather than the request, was at fault.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.transient = passing


class ChatClient:
    """Asks an endpoint, with the retries that the configuration allows; safe for threads."""

    def __init__(self, endpoint: Endpoint, model: str, config: JudgeConfig) -> None:
        # Seldom needed and slow to import: not at the top.
        import openai

        from airflow_provider_kitops.judge._transport import Transport, UnusableAnswer

        self._openai = openai
        self._is_unusable = UnusableAnswer.is_behind
        self._endpoint = endpoint
        self._model = model
        self._config = config
        self._logprobs = config.logprobs != "never"
        self._closed = threading.Event()
        # A proxy cannot reach this machine's loopback.
        self._transport = Transport(timeout=config.timeout, trust_env=not endpoint.is_loopback)
        self._client = openai.OpenAI(
            base_url=endpoint.base_url,
            # The client demands a key even where the endpoint wants none. What the environment holds for OpenAI
            # itself must not go to another host.
            api_key=endpoint.api_key or "none",
            organization="",
            project="",
            timeout=config.timeout,
            max_retries=0,
            http_client=self._transport.client,
        )

    def close(self) -> None:
        """End the connections, and what is being asked over them; nothing is tried again."""
        self._closed.set()
        self._transport.interrupt()

    def ask(self, messages: Sequence[Message]) -> Completion:
        """One answer.

        :raises CallFailed: this request got no usable answer.
        :raises JudgeUnavailable: the endpoint cannot be reached.
        :raises Unauthorized: HTTP 401; ``Forbidden`` for 403; ``InvalidInput`` for 404, an unknown model or path, and
            for a redirect, which is not followed.
        """
        openai = self._openai
        retrying = Retrying(
            stop=stop_any(stop_after_attempt(self._config.retries + 1), stop_when_event_set(self._closed)),
            sleep=sleep_using_event(self._closed),
            wait=_wait,
            retry=retry_if_exception(self._is_passing),
            reraise=True,
        )
        try:
            return retrying(self._ask, messages)
        except openai.BadRequestError as error:
            if not (self._logprobs and self._config.logprobs == "auto" and "logprob" in str(error).lower()):
                raise CallFailed(self._said("refused the request", error), passing=False) from None
        except openai.AuthenticationError as error:
            raise Unauthorized(
                self._said("refused the key", error), hint="Check the key of the judge's connection."
            ) from None
        except openai.PermissionDeniedError as error:
            raise Forbidden(self._said("refused the call", error)) from None
        except openai.NotFoundError as error:
            raise InvalidInput(
                self._said(f"knows no model {self._model!r}, or the path is wrong", error),
                hint="The URL usually ends in /v1.",
            ) from None
        except openai.APITimeoutError:
            raise CallFailed(
                f"The judge at {self._endpoint.base_url} gave no answer within {self._config.timeout:g} s "
                f"({self._config.retries + 1} attempts).",
                passing=True,
            ) from None
        except openai.APIConnectionError as error:
            if self._is_unusable(error):
                raise CallFailed(self._said(_UNREADABLE, error.__cause__ or error), passing=True) from None
            raise JudgeUnavailable(
                f"The judge at {self._endpoint.base_url} cannot be reached ({self._config.retries + 1} attempts): "
                f"{self._redact(str(error.__cause__ or error))}.",
                hint="Is it running, and is the URL right?",
            ) from None
        except openai.APIStatusError as error:
            if 300 <= error.status_code < 400:
                raise self._redirected(error) from None
            raise CallFailed(self._said("failed", error), passing=self._is_passing(error)) from None
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            raise CallFailed(self._said(_UNREADABLE, error), passing=True) from None
        # This endpoint has no log-probabilities: no request needs to try again.
        self._logprobs = False
        return self.ask(messages)

    def _ask(self, messages: Sequence[Message]) -> Completion:
        config = self._config
        options: dict[str, Any] = {config.token_limit_parameter: config.maximum_tokens}
        if self._logprobs:
            options |= {"logprobs": True, "top_logprobs": config.top_logprobs}
        completion = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": role, "content": content} for role, content in messages],  # type: ignore[misc]
            temperature=config.temperature,
            seed=config.seed,
            **options,
        )
        # The client passes on whatever JSON or text an endpoint sends, unchecked.
        try:
            choice = completion.choices[0]
            text = _text(choice.message.content or "", _MOST_CHARACTERS)
            positions = choice.logprobs.content or () if choice.logprobs else ()
            tokens = tuple(
                _alternatives(position.token, position.logprob, position.top_logprobs)
                for position in positions[:_MOST_POSITIONS]
            )
            usage = completion.usage
            counted = (_count(usage.prompt_tokens), _count(usage.completion_tokens)) if usage else (0, 0)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError):
            raise ValueError("it is no chat completion") from None
        return Completion(text, tokens, *counted)

    def _redirected(self, error: openai.APIStatusError) -> InvalidInput:
        to = urlsplit(_clean(error.response.headers.get("Location", "")))
        # No more than the host: what follows may be signed.
        where = f" to {to.scheme}://{to.netloc.rpartition('@')[2]}" if to.scheme and to.netloc else ""
        return InvalidInput(
            f"The judge at {self._endpoint.base_url} redirects{where[:200]} (HTTP {error.status_code}), which is not "
            "followed.",
            hint="If that is the judge, give its URL: nobody else gets to see the prompts.",
        )

    def _is_passing(self, error: BaseException) -> bool:
        if isinstance(error, self._openai.APIStatusError):
            return error.status_code >= 500 or error.status_code in (408, 409, 425, 429)
        if self._is_unusable(error):
            return False
        return isinstance(error, (self._openai.APIConnectionError, ValueError, RecursionError))

    def _said(self, what: str, error: BaseException) -> str:
        return f"The judge at {self._endpoint.base_url} {what}: {self._redact(str(error))}"

    def _redact(self, text: str) -> str:
        key = self._endpoint.api_key
        return _clean(text.replace(key, "***") if key else text)[:300]


def _alternatives(token: str, logprob: float, top: Sequence[Any]) -> tuple[tuple[str, float], ...]:
    name = _text(token, _LONGEST_TOKEN)
    found: Mapping[str, float] = {
        _text(entry.token, _LONGEST_TOKEN): _log_probability(entry.logprob)
        for entry in (top or ())[:_MOST_ALTERNATIVES]
    }
    chosen = (name, _log_probability(logprob))
    return (chosen, *((other, value) for other, value in found.items() if other != name))


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return _clean(value[:longest])


def _clean(text: str) -> str:
    """A text that can be written as UTF-8: JSON can say halves of characters, which no file can hold."""
    return text.encode(errors="replace").decode()


def _count(value: Any) -> int:
    """How many tokens: one that is below zero would pay for others."""
    number = int(value)
    if not 0 <= number < _MOST_TOKENS:
        raise ValueError("not a number of tokens")
    return number


def _log_probability(value: Any) -> float:
    """What an endpoint gives as one: some say minus infinity, which JSON cannot, for what cannot be."""
    number = float(value)
    if math.isnan(number):
        raise ValueError("a log-probability is no number")
    return min(0.0, max(_IMPOSSIBLE, number))


def _wait(state: RetryCallState) -> float:
    """What the endpoint asks for (Retry-After in seconds), or exponential, at random."""
    error = state.outcome.exception() if state.outcome else None
    response = getattr(error, "response", None)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if asked.isdecimal():
        return min(float(asked), _LONGEST_WAIT)
    return float(_backoff(state))
