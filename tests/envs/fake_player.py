"""A stand-in for a Unity player: ML-Agents' protocol 1.5.0 over gRPC, from a process of its own.

It imports nothing of the client: the messages are defined here. Its agents count their steps and
walk along a line: every observation is a function of (seed, agent, episode, step), so that tests
can say what must arrive. `--record` names a file that gets what the player was told, as JSON lines.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import time
import uuid
import zlib
from functools import partial

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KINDS = {"float": 2, "int": 5, "bool": 8, "string": 9, "bytes": 12}
# Message: {field: (number, kind)}; "*" repeated, "{}" a map from strings.
MESSAGES = {
    "Header": {"status": (1, "int"), "message": (2, "string")},
    "Action": {"continuous": (6, "float*"), "discrete": (7, "int*")},
    "Actions": {"value": (1, "Action*")},
    "Floats": {"data": (1, "float*")},
    "Observation": {
        "shape": (1, "int*"), "compression": (2, "int"), "compressed": (3, "bytes"),
        "floats": (4, "Floats"), "properties": (6, "int*"), "type": (7, "int"),
        "name": (8, "string"),
    },
    "Agent": {
        "reward": (7, "float"), "done": (8, "bool"), "max_step": (9, "bool"), "id": (10, "int"),
        "mask": (11, "bool*"), "observations": (13, "Observation*"), "group_reward": (15, "float"),
    },
    "Agents": {"value": (1, "Agent*")},
    "ActionSpec": {"continuous": (1, "int"), "discrete": (2, "int"), "branches": (3, "int*")},
    "Brain": {"name": (7, "string"), "training": (8, "bool"), "actions": (9, "ActionSpec")},
    "Capabilities": {"base": (1, "bool")},
    "InitIn": {"seed": (1, "int"), "version": (2, "string"), "areas": (5, "int")},
    "InitOut": {
        "name": (1, "string"), "version": (2, "string"), "brains": (5, "Brain*"),
        "package": (7, "string"), "capabilities": (8, "Capabilities"),
    },
    "RlIn": {"actions": (1, "Actions{}"), "command": (4, "int"), "side": (5, "bytes")},
    "RlOut": {"agents": (2, "Agents{}"), "side": (3, "bytes")},
    "Input": {"rl": (1, "RlIn"), "init": (2, "InitIn")},
    "Output": {"rl": (1, "RlOut"), "init": (2, "InitOut")},
    "Message": {"header": (1, "Header"), "output": (2, "Output"), "input": (3, "Input")},
}  # fmt: skip


def messages():
    """Classes of all of them."""
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            put(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p.{n}"))
            for n in MESSAGES}  # fmt: skip


def put(message, field, number, kind):
    plain = kind.rstrip("*{}")
    if kind.endswith("{}"):
        entry = message.nested_type.add(name=f"{field.title()}Entry")
        entry.options.map_entry = True
        put(entry, "key", 1, "string")
        put(entry, "value", 2, plain)
        plain = f"{message.name}.{entry.name}"
    found = message.field.add(name=field, number=number, label=1 if plain == kind else 3)
    if plain in KINDS:
        found.type = KINDS[plain]
    else:
        found.type, found.type_name = 11, f".p.{plain}"


M = messages()


def pixel(y, x, c, step):
    """What every camera sees."""
    return (10 * y + x + 60 * c + 7 * step) % 256


def scene(agent, y, x):
    """A walker under the sun, 80 by 120: what the pictures of the documentation show."""
    hills = 46 + 5 * math.sin(x / 11) + 3 * math.sin(x / 5 + 1)
    body, phase = 60 + 50 * agent.x, math.sin(agent.step * 1.3)
    leg = phase * (y - 54) * 0.5
    if math.hypot(y - 40, x - body) < 5:
        return 250, 214, 165
    if math.hypot((y - 50) / 1.6, x - body) < 4.5 or (
        54 < y < 66 and min(abs(x - body - leg), abs(x - body + leg)) < 1.6
    ):
        return 214, 84, 62
    if math.hypot(y - 16, x - 94) < 8:
        return 255, 236, 170
    if y > 62:
        shade = 12 * ((x - 60) * 30 // (y - 52) // 30 % 2)
        return 96 + shade, 140 + shade, 84 + shade
    if y > hills:
        return 74, 120, 110
    return 120 + 2 * y, 170 + y, 226 - y


def png(rows, columns, paint):
    """An RGB picture of `paint(y, x)`."""
    lines = b"".join(
        b"\0" + bytes(int(value) for x in range(columns) for value in paint(y, x))
        for y in range(rows)
    )
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def floats(name, shape, data, properties=(), goal=False):
    return M["Observation"](
        name=name, shape=shape, floats={"data": data}, properties=properties, type=int(goal)
    )


def camera(name, step, first=False, rows=8, columns=10):
    shape, properties = (rows, columns, 3), (2, 2, 1)
    if first:
        shape, properties = (3, rows, columns), (1, 2, 2)
    return M["Observation"](
        name=name, shape=shape, properties=properties, compression=1,
        compressed=png(rows, columns, lambda y, x: [pixel(y, x, c, step) for c in range(3)]),
    )  # fmt: skip


def landscape(agent):
    return M["Observation"](
        name="Eye", shape=(80, 120, 3), properties=(2, 2, 1), compression=1,
        compressed=png(80, 120, partial(scene, agent)),
    )  # fmt: skip


def raw(name, step, channels, first=False, rows=6, columns=7):
    """An uncompressed picture, in [0, 1]."""
    yxc = [(y, x, c) for y in range(rows) for x in range(columns) for c in range(channels)]
    if first:
        yxc = [(y, x, c) for c in range(channels) for y in range(rows) for x in range(columns)]
    data = [pixel(y, x, c, step) / 255 for y, x, c in yxc]
    shape, properties = ((channels, rows, columns), (1, 2, 2)) if first else (
        (rows, columns, channels), (2, 2, 1))  # fmt: skip
    return floats(name, shape, data, properties)


def vector(agent):
    return floats("VectorSensor", [3], [agent.x, agent.step, agent.number])


def mixed(a):
    return [
        vector(a), camera("Eye", a.step), raw("Night eye", a.step, 1),
        floats("Goal", [2], [a.x, 1], goal=True), floats("Extra", [1], [-a.step]),
        floats("Buffer", [4, 3], range(12), (4, 1)), raw("Grid", a.step, 2),
    ]  # fmt: skip


# Scenario: behaviour -> (continuous, branches, observations, number of agents)
SCENARIOS = {
    "vector": {"Walk?team=0": (2, (), lambda a: [vector(a)], 1)},
    "pixels": {"See": (0, (3,), lambda a: [camera("Eye", a.step)], 1)},
    "mixed": {"Mix": (0, (3, 2, 4), mixed, 1)},
    "hybrid": {"Both": (2, (3, 2), lambda a: [vector(a)], 1)},
    "first": {
        "New": (1, (), lambda a: [camera("Eye", a.step, True), raw("Two", a.step, 3, True)], 1)
    },
    "crowd": {"Walk": (1, (), lambda a: [vector(a), camera("Eye", a.step)], 3)},
    "two": {
        "Walk": (2, (), lambda a: [vector(a)], 1),
        "See": (0, (3,), lambda a: [camera("Eye", a.step)], 2),
    },
    "scene": {"Walk": (1, (), lambda a: [landscape(a)], 1)},
    "nobody": {},
}


class Agent:
    """Ends when it has walked beyond 1, is cut off after `limit` steps, asks every `period`."""

    ids = 0

    def __init__(self, number, seed, period, limit):
        self.number, self.seed, self.period, self.limit = number, seed, period, limit
        self.episode = -1
        self.begin()

    def begin(self):
        self.episode += 1
        self.x = ((self.seed * 31 + self.number * 7 + self.episode * 3) % 100) / 200 - 0.25
        self.step, self.reward, self.action = 0, 0.0, (0.0,)
        Agent.ids += 1
        self.id = Agent.ids

    def move(self):
        self.step += 1
        self.x += self.action[0] / 10
        self.reward += self.action[0]

    def ended(self):
        """(over, cut off)."""
        return self.x > 1 or self.step >= self.limit, self.x <= 1


class Player:
    def __init__(self, options):
        self.options, self.seed, self.steps, self.told = options, 0, 0, None
        self.record = open(options.record, "a", buffering=1) if options.record else None  # noqa: SIM115
        self.scenario = SCENARIOS[options.scenario]
        self.agents, self.parameters = {}, {}
        channel = grpc.insecure_channel(f"localhost:{options.mlagents_port}")
        self.exchange = channel.unary_unary(
            "/communicator_objects.UnityToExternalProto/Exchange",
            request_serializer=M["Message"].SerializeToString,
            response_deserializer=M["Message"].FromString,
        )

    def note(self, **what):
        if self.record:
            self.record.write(json.dumps(what) + "\n")

    def call(self, output=None, status=200):
        message = M["Message"](header={"status": status})
        if output is not None:
            message.output.CopyFrom(output)
        answer = self.exchange(message, wait_for_ready=True, timeout=120)
        return answer.input if answer.header.status == 200 else None

    def run(self):
        child = subprocess.Popen(["sleep", "300"]) if self.options.stubborn else None
        self.note(pid=os.getpid(), child=child and child.pid, argv=sys.argv[1:])
        init = M["InitOut"](name="fake", version=self.options.version, package="2.1.0",
                            capabilities={"base": True})  # fmt: skip
        told = self.call(M["Output"](init=init))
        self.seed = told.init.seed
        self.note(seed=told.init.seed, version=told.init.version, areas=told.init.areas)
        told = self.call()
        while told is not None:
            told = self.call(self.answer(told.rl))
        self.note(quit=True)
        while self.options.stubborn:
            time.sleep(1)

    def answer(self, told):
        """One turn of the world: what it was told, then what the agents have to say."""
        self.hear(told.side)
        if told.command == 1:
            self.note(reset=True)
            self.reset()
        else:
            self.note(actions={name: [[list(a.continuous), list(a.discrete)] for a in v.value]
                               for name, v in told.actions.items()})  # fmt: skip
            self.misbehave()
            self.take(told.actions)
            self.advance()
        return self.say(told.command == 1)

    def misbehave(self):
        self.steps += 1
        if self.steps == self.options.die_at:
            os._exit(3)
        if self.steps == self.options.quit_at:
            self.call(status=400)
            sys.exit(0)
        if self.steps == self.options.hang_at:
            time.sleep(600)

    def reset(self):
        seed = int(self.parameters.get("seed", self.seed))
        count = self.options.agents
        self.agents = {
            name: [Agent(n, seed, self.options.period + n * self.options.drift,
                         self.options.limit + n * self.options.spread)
                   for n in range(count or many)]
            for name, (_, _, _, many) in self.scenario.items()
        }  # fmt: skip
        self.asking = {a.id: a for agents in self.agents.values() for a in agents}
        self.ended = []

    def take(self, actions):
        """Actions come in the order in which the agents asked."""
        for name, agents in self.agents.items():
            asked = [a for a in agents if a.id in self.asking]
            for agent, action in zip(asked, actions[name].value, strict=False):
                agent.action = list(action.continuous) + [float(d) for d in action.discrete]

    def advance(self):
        """Until some agent asks or has ended."""
        self.asking, self.ended = {}, []
        while not self.asking and not self.ended:
            for name, agents in self.agents.items():
                for agent in tuple(agents):
                    agent.move()
                    over, cut = agent.ended()
                    if over:
                        self.ended.append((name, self.info(name, agent, True, cut)))
                        agent.begin()
                        if self.options.vanish:
                            agents.remove(agent)
                        elif not self.options.late:
                            self.asking[agent.id] = agent
                    elif agent.step % agent.period == 0:
                        self.asking[agent.id] = agent

    def info(self, name, agent, done=False, cut=False):
        _, branches, observe, _ = self.scenario[name]
        found = M["Agent"](
            id=agent.id, reward=agent.reward, done=done, max_step=cut, group_reward=0.5,
            observations=observe(agent),
        )  # fmt: skip
        if branches:  # in odd steps the first choice of the first branch is forbidden
            found.mask.extend([i == 0 and agent.step % 2 == 1 for i in range(sum(branches))])
        agent.reward = 0.0
        return found

    def say(self, introduce):
        output = M["Output"]()
        for name, agents in self.agents.items():
            said = output.rl.agents[name].value
            said.extend(info for owner, info in self.ended if owner == name)
            said.extend(self.info(name, a) for a in agents if a.id in self.asking)
        if introduce:
            for name, (continuous, branches, _, _) in self.scenario.items():
                spec = {"continuous": continuous, "discrete": len(branches), "branches": branches}
                output.init.brains.add(name=name, training=True, actions=spec)
        output.rl.side = statistic("steps", float(self.steps))
        return output

    def hear(self, data):
        while data:
            channel, size = uuid.UUID(bytes_le=data[:16]), struct.unpack_from("<i", data, 16)[0]
            body, data = data[20 : 20 + size], data[20 + size :]
            if str(channel).startswith("e951342c"):  # engine
                kind = struct.unpack_from("<i", body)[0]
                form = "<if" if kind == 2 else "<" + "i" * (size // 4)
                self.note(engine=struct.unpack(form, body))
            elif str(channel).startswith("534c891e"):  # environment parameters
                length = struct.unpack_from("<i", body)[0]
                name = body[4 : 4 + length].decode()
                self.parameters[name] = struct.unpack_from("<f", body, 8 + length)[0]
                self.note(parameter=[name, self.parameters[name]])
            else:
                self.note(channel=str(channel), size=size)


def statistic(name, value):
    body = struct.pack("<i", len(name)) + name.encode() + struct.pack("<fi", value, 1)
    channel = uuid.UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")
    return channel.bytes_le + struct.pack("<i", len(body)) + body


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--mlagents-port", type=int)
    parser.add_argument("--scenario", default="vector")
    parser.add_argument("--record")
    parser.add_argument("--version", default="1.5.0")
    for name in ("die-at", "quit-at", "hang-at", "agents", "drift", "spread"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--period", type=int, default=1)
    parser.add_argument("--limit", type=int, default=8)
    for name in ("mute", "stubborn", "late", "vanish", "nographics", "batchmode"):
        parser.add_argument(f"--{name}", "-" + name, action="store_true")
    options = parser.parse_args()
    if options.mute:
        Player(options).note(pid=os.getpid())
        time.sleep(600)
    Player(options).run()


if __name__ == "__main__":
    main()
