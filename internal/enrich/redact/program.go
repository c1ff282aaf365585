package redact

import "bytes"

// program is a group of programs that take a secret, or a script that may hold
// one, by a short flag.
type program uint8

const (
	noProgram program = iota
	mysqlClient
	passFlag    // -p
	upperPass   // -P
	redisClient // -a
	webClient   // -u user:password
	ldapClient  // -w
	sambaClient // -U user%password
	loginClient // "login ... -p"
	archiver    // -p, attached only
	snmpClient  // -A -X -c
	openssl     // -k
	ftpClient   // -u user,password
	httpie      // -a user:password
	shell       // -c script
)

var programs = map[string]program{
	"sshpass": passFlag, "mongo": passFlag, "mongosh": passFlag, "mongodump": passFlag, "mongorestore": passFlag,
	"mongoexport": passFlag, "mongoimport": passFlag, "mongostat": passFlag, "mongotop": passFlag,
	"useradd": passFlag, "usermod": passFlag, "ncftp": passFlag, "ncftpget": passFlag, "ncftpput": passFlag, "rdesktop": passFlag,
	"zip": upperPass, "unzip": upperPass, "ipmitool": upperPass, "sqlcmd": upperPass, "bcp": upperPass, "isql": upperPass,
	"mosquitto_pub": upperPass, "mosquitto_sub": upperPass, "mosquitto_rr": upperPass,
	"redis-cli": redisClient, "valkey-cli": redisClient, "keydb-cli": redisClient, "redis-benchmark": redisClient,
	"curl": webClient, "http": httpie, "https": httpie, "xh": httpie,
	"smbclient": sambaClient, "rpcclient": sambaClient, "net": sambaClient,
	"docker": loginClient, "podman": loginClient, "nerdctl": loginClient, "buildah": loginClient, "skopeo": loginClient,
	"helm": loginClient, "oras": loginClient, "az": loginClient, "oc": loginClient, "crane": loginClient,
	"7z": archiver, "7za": archiver, "7zr": archiver, "7zz": archiver, "rar": archiver, "unrar": archiver,
	"openssl": openssl, "lftp": ftpClient,
	"sh": shell, "bash": shell, "dash": shell, "ash": shell, "zsh": shell, "ksh": shell, "fish": shell, "su": shell, "runuser": shell,
}

// families are programs that are known by how their names begin.
var families = []struct {
	prefix  string
	program program
}{{"mysql", mysqlClient}, {"mariadb", mysqlClient}, {"ldap", ldapClient}, {"snmp", snmpClient}, {"python", shell}}

func programOf(name []byte) (program, bool) {
	if p, ok := programs[string(name)]; ok {
		return p, true
	}
	for _, f := range families {
		if bytes.HasPrefix(name, []byte(f.prefix)) && bytes.IndexByte(name, '.') < 0 {
			return f.program, true
		}
	}
	return noProgram, false
}

func base(path []byte) []byte { return path[bytes.LastIndexByte(path, '/')+1:] }

// shortKind says how a short flag holds its secret.
type shortKind uint8

const (
	noFlag       shortKind = iota
	wholeValue             // -p x or -px
	attachedOnly           // -px; "-p" alone asks for it
	afterColon             // -u user:x
	afterPercent           // -U user%x
	afterComma             // -u user,x
	afterEquals            // -b name=x
)

// splits returns the byte before the secret, 0 if all of the value is secret.
func (k shortKind) splits() byte {
	switch k {
	case afterColon:
		return ':'
	case afterPercent:
		return '%'
	case afterComma:
		return ','
	case afterEquals:
		return '='
	}
	return 0
}

// shorts are the flags of each program: the flag, how it holds the secret, and
// whether the value may be attached to it.
var shorts = map[program][]struct {
	flag     string
	kind     shortKind
	attached bool
}{
	mysqlClient: {{"p", attachedOnly, true}},
	archiver:    {{"p", attachedOnly, true}, {"hp", attachedOnly, true}},
	passFlag:    {{"p", wholeValue, true}},
	upperPass:   {{"P", wholeValue, true}},
	redisClient: {{"a", wholeValue, false}},
	webClient:   {{"u", afterColon, true}, {"U", afterColon, true}, {"b", afterEquals, true}},
	httpie:      {{"a", afterColon, true}},
	ldapClient:  {{"w", wholeValue, true}},
	sambaClient: {{"U", afterPercent, true}},
	loginClient: {{"p", wholeValue, true}},
	snmpClient:  {{"A", wholeValue, true}, {"X", wholeValue, true}, {"c", wholeValue, true}},
	openssl:     {{"k", wholeValue, false}, {"K", wholeValue, false}},
	ftpClient:   {{"u", afterComma, true}},
}

// short returns how the flag -name holds a secret in p, and the length of the
// flag.
func (p program) short(name []byte, login bool) (shortKind, int) {
	if p == noProgram || (p == loginClient && !login) {
		return noFlag, 0
	}
	for _, f := range shorts[p] {
		if string(name) == f.flag || (f.attached && bytes.HasPrefix(name, []byte(f.flag))) {
			return f.kind, len(f.flag)
		}
	}
	return noFlag, 0
}

// tokenShapes are the prefixes of tokens that say what they are, and the
// least length of one, prefix included.
var tokenShapes = []struct {
	prefix string
	length int
}{
	{"ghp_", 20}, {"gho_", 20}, {"ghu_", 20}, {"ghs_", 20}, {"ghr_", 20}, {"github_pat_", 30}, {"glpat-", 20},
	{"xoxb-", 20}, {"xoxp-", 20}, {"xoxa-", 20}, {"xoxr-", 20}, {"xoxs-", 20},
	{"AKIA", 20}, {"ASIA", 20}, {"AIza", 39}, {"npm_", 30}, {"hvs.", 24}, {"sk-", 32}, {"sk_live_", 24}, {"rk_live_", 24},
	{"eyJ", 40},
}
