package redis

import (
	"bytes"

	"ghostlight/internal/l7"
)

// sniff tells commands from replies by the first element: an array of strings
// whose first one is a command is a command. "+OK" and "-ERR" are said by others
// too (POP3, NATS), as is an inline PING; such connections are known by what
// follows.
func sniff(p []byte) l7.Side {
	if len(p) < 3 {
		return l7.Neither
	}
	switch p[0] {
	case '*', '>', '~', '%', '|':
		return sniffArray(p)
	case '$', '=', '!':
		return sniffBulk(p)
	case ':':
		if _, next := number(p[1:]); next > 0 {
			return l7.Answers
		}
	case '+':
		if isCommonLine(p) {
			return l7.Answers
		}
	case '-':
		if isCommonError(p[1:]) {
			return l7.Answers
		}
	case '_':
		if bytes.HasPrefix(p, []byte("_\r\n")) {
			return l7.Answers
		}
	case '#':
		if bytes.HasPrefix(p, []byte("#t\r\n")) || bytes.HasPrefix(p, []byte("#f\r\n")) {
			return l7.Answers
		}
	}
	return l7.Neither
}

func sniffArray(p []byte) l7.Side {
	n, next := number(p[1:])
	if next <= 0 || n < -1 || n > 1<<24 {
		return l7.Neither
	}
	rest := p[1+next:]
	if n <= 0 {
		return l7.Answers
	}
	if len(rest) == 0 {
		return l7.Neither
	}
	if p[0] != '*' || rest[0] != '$' {
		if bytes.IndexByte([]byte("$*:+-_#,(~%>=|!"), rest[0]) < 0 {
			return l7.Neither
		}
		return l7.Answers
	}
	size, next := number(rest[1:])
	if next <= 0 || size < -1 {
		return l7.Neither
	}
	word := rest[1+next:]
	if int64(len(word)) > size && size >= 0 {
		word = word[:size]
	}
	if size > 0 && size <= maxCommand && isCommand(word, int(size)) {
		return l7.Asks
	}
	if size > 0 && int64(len(word)) < size {
		return l7.Neither // it was cut, and may become either
	}
	return l7.Answers
}

func sniffBulk(p []byte) l7.Side {
	n, next := number(p[1:])
	if next <= 0 || n < -1 {
		return l7.Neither
	}
	if end := 1 + next + int(min(n, 1<<20)); n >= 0 && len(p) > end && p[end] != '\r' {
		return l7.Neither
	}
	return l7.Answers
}

func isCommonLine(p []byte) bool {
	for _, line := range [...]string{"+PONG\r\n", "+QUEUED\r\n", "+FULLRESYNC ", "+CONTINUE"} {
		if bytes.HasPrefix(p, []byte(line)) {
			return true
		}
	}
	return false
}

func isCommonError(p []byte) bool {
	word, _, found := bytes.Cut(p, []byte(" "))
	if !found {
		return false
	}
	switch string(word) {
	case "WRONGTYPE", "MOVED", "ASK", "NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "BUSY", "OOM", "READONLY", "EXECABORT",
		"NOSCRIPT", "MASTERDOWN", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS", "BUSYKEY", "BUSYGROUP", "NOGROUP", "NOPROTO":
		return true
	}
	return false
}

// commands are those that are likely to be met first.
var commands = [...]string{
	"ACL", "APPEND", "ASKING", "AUTH", "BGREWRITEAOF", "BGSAVE", "BITCOUNT", "BITFIELD", "BITFIELD_RO", "BITOP", "BITPOS", "BLMOVE", "BLMPOP",
	"BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "COPY", "DBSIZE", "DEBUG", "DECR",
	"DECRBY", "DEL", "DISCARD", "DUMP", "ECHO", "EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "EXEC", "EXISTS", "EXPIRE", "EXPIREAT", "EXPIRETIME",
	"FAILOVER", "FCALL", "FCALL_RO", "FLUSHALL", "FLUSHDB", "FUNCTION", "GEOADD", "GEODIST", "GEOHASH", "GEOPOS", "GEORADIUS", "GEORADIUSBYMEMBER",
	"GEOSEARCH", "GEOSEARCHSTORE", "GET", "GETBIT", "GETDEL", "GETEX", "GETRANGE", "GETSET", "HDEL", "HELLO", "HEXISTS", "HEXPIRE", "HGET", "HGETALL",
	"HGETDEL", "HGETEX", "HINCRBY", "HINCRBYFLOAT", "HKEYS", "HLEN", "HMGET", "HMSET", "HPERSIST", "HPEXPIRE", "HRANDFIELD", "HSCAN", "HSET", "HSETEX",
	"HSETNX", "HSTRLEN", "HTTL", "HVALS", "INCR", "INCRBY", "INCRBYFLOAT", "INFO", "KEYS", "LASTSAVE", "LATENCY", "LCS", "LINDEX", "LINSERT", "LLEN",
	"LMOVE", "LMPOP", "LPOP", "LPOS", "LPUSH", "LPUSHX", "LRANGE", "LREM", "LSET", "LTRIM", "MEMORY", "MGET", "MIGRATE", "MODULE", "MONITOR", "MOVE",
	"MSET", "MSETNX", "MULTI", "OBJECT", "PERSIST", "PEXPIRE", "PEXPIREAT", "PFADD", "PFCOUNT", "PFMERGE", "PING", "PSETEX", "PSUBSCRIBE", "PSYNC",
	"PTTL", "PUBLISH", "PUBSUB", "PUNSUBSCRIBE", "QUIT", "RANDOMKEY", "READONLY", "READWRITE", "RENAME", "RENAMENX", "REPLCONF", "REPLICAOF", "RESET",
	"RESTORE", "ROLE", "RPOP", "RPOPLPUSH", "RPUSH", "RPUSHX", "SADD", "SAVE", "SCAN", "SCARD", "SCRIPT", "SDIFF", "SDIFFSTORE", "SELECT", "SET",
	"SETBIT", "SETEX", "SETNX", "SETRANGE", "SHUTDOWN", "SINTER", "SINTERCARD", "SINTERSTORE", "SISMEMBER", "SLAVEOF", "SLOWLOG", "SMEMBERS",
	"SMISMEMBER", "SMOVE", "SORT", "SORT_RO", "SPOP", "SPUBLISH", "SRANDMEMBER", "SREM", "SSCAN", "SSUBSCRIBE", "STRLEN", "SUBSCRIBE", "SUBSTR",
	"SUNION", "SUNIONSTORE", "SUNSUBSCRIBE", "SWAPDB", "SYNC", "TIME", "TOUCH", "TTL", "TYPE", "UNLINK", "UNSUBSCRIBE", "UNWATCH", "WAIT", "WAITAOF",
	"WATCH", "XACK", "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XGROUP", "XINFO", "XLEN", "XPENDING", "XRANGE", "XREAD", "XREADGROUP", "XREVRANGE",
	"XTRIM", "ZADD", "ZCARD", "ZCOUNT", "ZDIFF", "ZDIFFSTORE", "ZINCRBY", "ZINTER", "ZINTERCARD", "ZINTERSTORE", "ZLEXCOUNT", "ZMPOP", "ZMSCORE",
	"ZPOPMAX", "ZPOPMIN", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANGESTORE", "ZRANK", "ZREM", "ZREMRANGEBYLEX", "ZREMRANGEBYRANK",
	"ZREMRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNION", "ZUNIONSTORE",
}

// isCommand reports whether word is a command of that many bytes, or the
// beginning of one: it may be cut.
func isCommand(word []byte, size int) bool {
	if len(word) == 0 {
		return false
	}
	if dot := bytes.IndexByte(word, '.'); dot > 0 && isName(word) { // a module's
		return true
	}
	for _, c := range commands {
		if len(c) == size && is(word, c[:min(len(word), size)]) {
			return true
		}
	}
	return false
}
