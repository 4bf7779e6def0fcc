"""What Redis executes as a whole, for `serve.redis`, which lists the keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that Redis gives it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode()).hexdigest())


_HELD = """
local found = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'lease', 'ttl', 'stop')
local epoch, last = tonumber(found[1] or '0'), tonumber(found[2] or '0')
local ours = tonumber(ARGV[1])
if epoch > ours then return -2 end
if epoch < ours or (last > 0 and redis.call('EXISTS', KEYS[2]) == 0) then return -1 end
"""

# The parts begin at ARGV[i]; the first has the number `number`.
_ADD = """
while ARGV[i] do
    if number > last then
        redis.call('XADD', KEYS[2], number .. '-0', 'part', ARGV[i])
        last = number
    end
    number = number + 1
    i = i + 1
end
redis.call('HSET', KEYS[1], 'last', last)
"""

# What writes after a command that needs no memory is not refused by a Redis that is full: a lease is always kept.
_RENEW = """
if redis.call('PEXPIRE', KEYS[3], found[3]) == 0 then redis.call('SET', KEYS[3], ours, 'PX', found[3]) end
redis.call('PEXPIRE', KEYS[1], found[4])
redis.call('PEXPIRE', KEYS[2], found[4])
return (found[5] and 1 or 0) + 2 * redis.call('EXISTS', KEYS[4])
"""

# Begins with what needs memory, so that a full Redis refuses it; so does APPEND.
CREATE = Script(f"""
local found = redis.call('HGET', KEYS[1], 'epoch')
if found and tonumber(found) > tonumber(ARGV[1]) then return -2 end
local last = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
if found ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
    if found then redis.call('DEL', KEYS[1], KEYS[2]) end
    last = 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'ticket', ARGV[2], 'lease', ARGV[3], 'ttl', ARGV[4])
local number, i = 1, 6
{_ADD}
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'over', 1) end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
""")

APPEND = Script(f"""
{_HELD}
local number, i = tonumber(ARGV[2]), 4
if number > last + 1 then return -1 end
{_ADD}
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'over', 1) end
{_RENEW}
""")

BEAT = Script(f"""
{_HELD}
{_RENEW}
""")

# With the epoch, whatever of this worker is still under way is fenced off as well.
RELEASE = Script(f"""
{_HELD}
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
return redis.call('DEL', KEYS[3])
""")

CLAIM = Script("""
local lease = redis.call('HMGET', KEYS[1], 'lease', 'over')
if not lease[1] or lease[2] or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('SET', KEYS[3], epoch, 'PX', lease[1])
return epoch
""")

STOP = Script("""
local found = redis.call('HMGET', KEYS[1], 'epoch', 'over')
if not found[1] or found[2] then return 0 end
return redis.call('HSET', KEYS[1], 'stop', 1) + 1
""")

# 0: missing, 1: over, 2: a worker is at it, 3: nobody is; 12 and 13: and Redis is full.
ATTEND = Script("""
local found = redis.call('HMGET', KEYS[1], 'epoch', 'over')
if not found[1] then return 0 end
if found[2] then return 1 end
local state = 3 - redis.call('EXISTS', KEYS[3])
local noted = redis.pcall('SET', KEYS[4], 1, 'PX', ARGV[1])
if not noted.err then return state end
redis.call('PEXPIRE', KEYS[4], ARGV[1])
return state + 10
""")
