"""Everything about who asks, as one part of the service: who exists, who is there, what they may take.

The pieces are modules of their own; here they are put together, and what touches several of them is done in
the one right order. The command line (`alchemy users`) uses the same object on the same state server.
"""

from dataclasses import dataclass

from alchemy.settings import Settings
from serving.answer import Answer
from serving.options import ServingOptions
from serving.people.access import Principal
from serving.people.anomalies import Anomaly, Watch
from serving.people.attempts import Attempts, TooManyAttempts
from serving.people.audit import Audit
from serving.people.credentials import Credentials, Unrecognized
from serving.people.keys import Keys
from serving.people.limits import Limits
from serving.people.logins import Logins, Pair
from serving.people.passwords import Hasher, check_strength, is_outdated
from serving.people.sealing import Sealing
from serving.people.sessions import Sessions
from serving.people.tokens import Tokens, signing_secret
from serving.people.users import NAME, User, Users
from serving.state import State
from serving.watching.metrics import Metrics

_SLOWED_S = 600.0


@dataclass(frozen=True)
class People:
    state: State
    options: ServingOptions
    metrics: Metrics
    users: Users
    keys: Keys
    logins: Logins
    credentials: Credentials
    attempts: Attempts
    hasher: Hasher
    limits: Limits
    sealing: Sealing
    sessions: Sessions
    audit: Audit
    watch: Watch

    async def log_in(self, name: str, password: str, address: str) -> Pair:
        """The tokens of a person. Raises Unrecognized, TooManyAttempts or Unavailable."""
        user = await self._with_password(name.strip().lower(), password, address)
        if is_outdated(user.password):
            await self.users.rehash(user, await self.hasher.hash(password))
        pair = await self.logins.start(user)
        self.metrics.logins.labels("right").inc()
        self.audit.record("login", user.principal(), address=address)
        return pair

    async def add(self, name: str, password: str, **fields: object) -> User:
        """A new person. Raises BadInput, Conflict, or pydantic's ValidationError."""
        check_strength(password, name)
        user = User.create(name, await self.hasher.hash(password), **fields)
        if await self.users.find(user.name) is None:  # else they are refused
            # Of somebody who had the name before, and whose removal was broken off.
            await self.sessions.delete_all(user.principal().owner)
        await self.users.add(user)
        return user

    async def set_password(self, user: User, password: str, **fields: object) -> User:
        """Gives the person another password, which ends all of their logins; changes other fields along."""
        check_strength(password, user.name)
        return await self.change(user, password=await self.hasher.hash(password), **fields)

    async def change_password(self, principal: Principal, old: str, new: str, address: str) -> None:
        """The same by the person, who knows the old one. Raises like `log_in`, and BadInput."""
        user = await self._with_password(principal.name, old, address)
        await self.set_password(user, new)
        self.audit.record("password_changed", principal, address=address)

    async def change(self, user: User, **fields: object) -> User:
        """Changes a person at once. Who moves to another tenant takes no history along: it is deleted."""
        changed = await self.users.change(user, **fields)
        self.credentials.forget()
        if changed.tenant != user.tenant:
            await self.sessions.delete_all(user.principal().owner)
        return changed

    async def remove(self, name: str, tenant: str | None = None) -> None:
        """Deletes a person, their keys and their history. Raises NotFound."""
        user = await self.users.get(name, tenant)
        # The person last: who is gone cannot be removed again where the state server fails in between.
        await self.keys.remove_all(user.name)
        await self.sessions.delete_all(user.principal().owner)
        await self.users.remove(name, tenant)
        self.credentials.forget()
        await self.sessions.delete_all(user.principal().owner)  # what they began meanwhile

    def answered(self, principal: Principal, question: str, answer: Answer) -> None:
        """Notes an answer that was given: ids for the audit log, and what anomalies are seen by."""
        self.audit.record("answer", principal, answer=answer.id, release=answer.release)
        documents = [citation.document_id for citation in answer.citations]
        self.watch.answered(principal.caller, question, documents)

    def close(self) -> None:
        """Writes what waits for the audit log."""
        self.hasher.close()
        self.audit.close()

    async def _with_password(self, name: str, password: str, address: str) -> User:
        """The person of that name and password; unknown names take as long."""
        tried = name if NAME.fullmatch(name) else "(no name)"  # what is counted is bounded
        try:
            await self.attempts.begin(tried, address)
        except TooManyAttempts:
            self.metrics.logins.labels("limited").inc()
            self.audit.record("login_limited", user=tried, address=address)
            raise
        user = await self.users.find(tried)
        right = await self.hasher.verify(password, user.password if user else None)
        if user is None or not right:
            self.metrics.logins.labels("wrong").inc()
            self.audit.record("login_failed", user=tried, address=address)
            raise Unrecognized("wrong name or password")
        await self.attempts.right(tried, address)
        return user


def open_people(settings: Settings, options: ServingOptions, state: State, metrics: Metrics) -> People:
    """The parts on a state server. In the dev profile this may write the signing secret (`tokens`)."""
    users, keys, limits = Users(state), Keys(state), Limits(state, options)
    tokens = Tokens(
        signing_secret(settings), access_s=options.access_token_s, refresh_s=options.refresh_token_s
    )
    logins = Logins(state, users, tokens, refresh_s=options.refresh_token_s)
    sealing = Sealing(settings.history_keys)
    audit = Audit(
        options.audit_log or settings.cache / "audit.jsonl",
        metrics,
        max_bytes=options.audit_bytes,
        files=options.audit_files,
    )

    def report(caller: str, anomaly: Anomaly) -> None:
        metrics.anomalies.labels(anomaly.kind).inc()
        audit.record("anomaly", caller=caller, kind=anomaly.kind, count=anomaly.count)
        if options.slow_anomalies:
            limits.tighten(caller, _SLOWED_S)

    return People(
        state=state,
        options=options,
        metrics=metrics,
        users=users,
        keys=keys,
        logins=logins,
        credentials=Credentials(
            state,
            users,
            keys,
            logins,
            tokens,
            metrics,
            operator_key=settings.api_key,
            is_open=settings.login == "open",
            stale_s=options.access_token_s,
        ),
        attempts=Attempts(state),
        hasher=Hasher(),
        limits=limits,
        sealing=sealing,
        sessions=Sessions(
            state,
            sealing,
            ttl_s=options.session_ttl_s,
            most_messages=options.session_messages,
            most_sessions=options.sessions_each,
        ),
        audit=audit,
        watch=Watch(report),
    )
