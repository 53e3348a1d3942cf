"""A CometD client such as aiosfstream: handshake, subscribe, long polls, the session's cookie, advice."""

import threading
import time

import requests
from common import TOKEN, URL, VERSION, control, report

CHANNEL = "/event/Order__e"


class Bayeux:
    """One client of the Streaming API."""

    def __init__(self, token):
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {token}"
        self.client = None
        self.count = 0

    def send(self, channel, **members):
        """One message and all that comes back, with the HTTP status."""
        self.count += 1
        message = {"id": str(self.count), "channel": channel, **members}
        if self.client:
            message["clientId"] = self.client
        answer = self.http.post(f"{URL}/cometd/{VERSION}", json=[message], timeout=130)
        return answer.status_code, answer.json()

    def handshake(self):
        """Begins a session; the cookie is kept by the HTTP session."""
        status, answer = self.send(
            "/meta/handshake", version="1.0", minimumVersion="1.0", supportedConnectionTypes=["long-polling"]
        )
        self.client = answer[0].get("clientId")
        return status, answer

    def subscribe(self, replay):
        """Subscribes to the channel from this replay id on."""
        return self.send("/meta/subscribe", subscription=CHANNEL, ext={"replay": {CHANNEL: replay}})

    def connect(self):
        """A long poll."""
        return self.send("/meta/connect", connectionType="long-polling")


def known(reply):
    """A reply without what each session makes up for itself."""
    status, messages = reply
    return [status, [{key: value for key, value in each.items() if key != "clientId"} for each in messages]]


result = {}
bayeux = Bayeux(TOKEN)
result["handshake"] = known(bayeux.handshake())
result["cookies"] = sorted(cookie.name for cookie in bayeux.http.cookies)
result["subscribe"] = known(bayeux.subscribe(-1))
result["first"] = known(bayeux.connect())

# A poll that waits hears of an event at once, in order, and each event once.
for round_ in range(3):
    heard = {}

    def poll():
        heard["reply"] = bayeux.connect()
        heard["at"] = time.monotonic()

    waiting = threading.Thread(target=poll)
    waiting.start()
    time.sleep(0.7)
    held = waiting.is_alive()
    published = time.monotonic()
    control("publish", {"channel": CHANNEL, "payload": {"Number__c": round_}})
    waiting.join(60)
    result[f"event_{round_}"] = [held, heard["at"] - published < 2.0, known(heard["reply"])]

# What was published between two polls is there at the next one.
for number in (10, 11):
    control("publish", {"channel": CHANNEL, "payload": {"Number__c": number}})
control("publish", {"channel": "/event/Other__e", "payload": {}})
result["between"] = known(bayeux.connect())

# A second client replays everything that is kept.
second = Bayeux(TOKEN)
second.handshake()
second.subscribe(-2)
result["replayed"] = known(second.connect())
result["wrong_replay"] = known(second.subscribe(9_999))

# A client that the server has forgotten, one without its cookie, and one without a session.
bayeux.client = "1nobody"
result["unknown"] = known(bayeux.connect())
without = requests.post(
    f"{URL}/cometd/{VERSION}",
    json=[{"id": "1", "channel": "/meta/connect", "clientId": second.client, "connectionType": "long-polling"}],
    headers={"Authorization": f"Bearer {TOKEN}"},
    timeout=30,
)
result["no_cookie"] = [without.status_code, without.text]
result["stale"] = known(Bayeux("00DWk0000000001MAA!stale").handshake())
result["disconnect"] = known(second.send("/meta/disconnect"))
report(result)
