"""aiosfstream-ng: log-in at the host that is built into it, subscriptions, replay, and a server that forgets its clients."""

import asyncio
import os

from aiosfstream_ng import Client, PasswordAuthenticator, RefreshTokenAuthenticator, ReplayOption
from aiosfstream_ng.exceptions import AiosfstreamException
from common import control, report

CHANNEL = "/event/Order__e"
APP = (os.environ["CLIENT_ID"], os.environ["LOGIN_SECRET"])


def by_password(password=os.environ["PASSWORD"]):
    """The password flow."""
    return PasswordAuthenticator(*APP, os.environ["LOGIN_NAME"], password)


def by_refresh_token(token=os.environ["REFRESH_TOKEN"]):
    """The refresh token flow."""
    return RefreshTokenAuthenticator(*APP, token)


def publish(number):
    """An event, from elsewhere."""
    payload = {"Number__c": number, "CreatedDate": "2026-11-22T12:00:00.000Z"}
    control("publish", {"channel": CHANNEL, "payload": payload})


async def numbers(client, count):
    """The next events: what they carry, in order."""
    return [(await asyncio.wait_for(client.receive(), 60))["data"]["payload"]["Number__c"] for _ in range(count)]


async def main():
    """Everything, one after the other."""
    result = {}
    async with Client(by_password()) as client:
        result["instance"] = client.auth.instance_url
        await client.subscribe(CHANNEL)
        for number in range(3):
            await asyncio.sleep(0.3)
            before = asyncio.get_running_loop().time()
            publish(number)
            heard = await numbers(client, 1)
            result[f"event_{number}"] = [heard, asyncio.get_running_loop().time() - before < 2.0]
        for number in (10, 11, 12):
            publish(number)
        result["burst"] = await numbers(client, 3)
        await client.unsubscribe(CHANNEL)
    async with Client(by_refresh_token(), replay=ReplayOption.ALL_EVENTS) as client:
        await client.subscribe(CHANNEL)
        result["replayed"] = await numbers(client, 6)
        # The server forgets its clients: this one greets again, subscribes again, and replays.
        control("forget", {})
        publish(20)
        result["after_forgetting"] = await numbers(client, 7)
    for name, authenticator in {"password": by_password("wrong"), "refresh_token": by_refresh_token("wrong")}.items():
        try:
            await Client(authenticator).open()
        except AiosfstreamException as problem:
            result[f"wrong_{name}"] = [type(problem).__name__, str(problem)]
    return result


report(asyncio.run(main()))
