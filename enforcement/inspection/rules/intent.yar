// What a call asks for, by topic. A finding only where the agent's role does not declare the topic. Folded text.

rule files { meta: kind = "intent" view = "asked" topic = "filesystem" strings:
    $a = /\b(list|show|tree|display|print|browse|enumerate|explore|traverse|walk|scan|give me|what|get|read|open|see)\b[^.?!]{0,40}\b(files?|director(y|ies)|folders?)\b[^.?!]{0,24}\b(structure|tree|listing|layout|system|on (the|this|your) (server|machine|host|system|disk)|of the (server|machine|host|system|disk))\b/
    $b = /\b(file|director(y|ies)|folder) (structure|tree|listing|layout|hierarchy)\b/
    $c = /\b(root director(y|ies)|root folder|home director(y|ies)|file ?system|working director(y|ies)|parent director(y|ies))\b/
    $d = /(^|[^a-z])(\/etc\/(passwd|shadow|hosts|sudoers|ssh|cron)|\/proc\/|\/var\/(log|lib|run|www)|\/root\/|\/home\/|\/usr\/(local|bin|lib)|c:[ \/]{1,3}(windows|users|program))/
    $e = /(\.\.[\/ ]){2,8}/
    $f = /\b(ls (la|al|l|a|r)|dir \/s|find \/ |cat \/|ls \/|du sh)\b/
    $g = /\b(list|show|what|which|print) [^.?!]{0,20}\b(files|folders|directories) (are |is |exist |present |stored )?(on|in|under) (the |this |your )?(server|machine|host|system|disk|root|container|computer|working)/
    $h = /\b(estructura de (archivos|directorios|carpetas)|structure des (fichiers|repertoires|dossiers)|dateistruktur|verzeichnisstruktur|ordnerstruktur|struttura (delle cartelle|dei file)|estrutura de (arquivos|pastas|diretorios)|структур.{1,4} (файлов|каталогов)|文件结构|目录结构|ファイル構造|ディレクトリ構造)/
  condition: any of them }
rule credentials { meta: kind = "intent" view = "asked" topic = "credentials" strings:
    $a = /\b(show|give|list|dump|get|fetch|find|read|print|reveal|send|export|extract|retrieve|what (is|are)|tell me|share|display|look up|need|want|provide)\b[^.?!]{0,48}\b(passwords?|credentials?|api ?keys?|access ?keys?|access ?tokens?|auth ?tokens?|bearer tokens?|secret ?keys?|secrets|private ?keys?|ssh ?keys?|signing keys?|encryption keys?|service account|connection string)\b/
    $b = /(\.aws\/credentials|\.ssh\/|id (rsa|ed2ssi9|ecdsa)\b|\.env\b|\.netrc|\.pgpass|\.kube\/config|\.npmrc|\.pypirc|\.git credentials|shadow file|keychain|keystore)/
    $c = /\b(contrasenas?|mots? de passe|passworter|kennworter|zugangsdaten|credenziali|senhas?|wachtwoord(en)?|парол|密码|口令|パスワード)/
  condition: any of them }
rule infrastructure { meta: kind = "intent" view = "asked" topic = "infrastructure" strings:
    $a = /\b(environment variables?|env vars?|process\.env|os\.environ|printenv|running (processes|services|containers)|process list|ps aux|whoami|hostname|uname|system (info|information|details|configuration)|operating system (version|details|name)|kernel version|server (version|configuration|config|details|software|specs?|name|architecture)|ip addr(ess(es)?)? of (the|your|this) (server|machine|host|database)|docker (ps|containers?|images?|socket)|kubectl|kubernetes (pods?|secrets?|cluster)|cloud metadata|metadata (service|endpoint)|installed (packages|software)|tech(nology)? stack|infrastructure (details|layout|diagram))\b/
    $b = /i69\.2sa\.i69\.2sa|metadata\.google\.internal/
  condition: any of them }
rule code { meta: kind = "intent" view = "asked" topic = "code_execution" strings:
    $a = /\b(run|execute|eval|evaluate|launch|spawn|invoke)\b[^.?!]{0,32}\b(shell|bash|command line|commands?|script|powershell|python code|code|binary|executable|subprocess|terminal|payload)\b/
    $b = /\b(rm (r|f|rf|fr) |sudo |chmod |chown |cmd\.exe|powershell(\.exe)?|bin\/(ba)?sh|os\.system|subprocess\.|child process|eval ?\(|exec ?\(|import os\b|runtime\.getruntime|reverse shell|wget http|curl http)/
  condition: any of them }
rule database { meta: kind = "intent" view = "asked" topic = "database" strings:
    $a = /\b(database|db|sql|table) (schemas?|structure|dump|tables|layout|definition|credentials)\b/
    $b = /\b(information schema|pg catalog|sqlite master|union (all )?select|drop (table|database)|delete from|truncate table|insert into|alter table|show (tables|databases)|select [^.?!]{1,60} from)\b/
    $c = /\b(dump|copy|clone|export|download) (the )?(whole |entire |full |complete )?(database|db|tables?)\b/
  condition: any of them }
rule accounts { meta: kind = "intent" view = "asked" topic = "accounts" strings:
    $a = /\b(create|add|delete|remove|disable|grant|give|promote|elevate|assign|revoke|unlock|reset|change|make)\b[^.?!]{0,32}\b(admins?|administrator|superuser|root|sudo|privileges?|permissions?|user accounts?|service accounts?|access rights|owner role|admin role|mfa|ia?m role|2fa)\b/
    $b = /\b(privilege escalation|become (root|admin)|admin (access|rights|password|account))\b/
  condition: any of them }
rule payments { meta: kind = "intent" view = "asked" topic = "payments" strings:
    $a = /\b(wire|transfer|send|pay|remit|move|withdraw|refund|issue|approve|release|reimburse)\b[^.?!]{0,40}\b(money|funds?|payments?|refunds?|dollars|euros|usd|eur|gbp|bitcoin|crypto|wallet|bank account|iban|payouts?|invoice)\b/
  condition: any of them }
rule bulk { meta: kind = "intent" view = "asked" topic = "bulk" strings:
    $a = /\b(all|every|entire|complete|full|whole|each)( of)?( the| our| your| my)?( \w{1,16})? (customers?|users?|clients?|patients?|employees?|members?|records?|accounts?|orders?|emails?|contacts?|transactions?|messages?|tickets?|profiles?|payroll|mailing list|customer (list|base|database|data|records))\b/
    $b = /\b(export|download|dump|scrape|harvest|exfiltrate|extract)\b[^.?!]{0,24}\b(all|everything|entire|complete|full|whole|every)\b/
  condition: any of them }
rule instructions { meta: kind = "intent" view = "asked" topic = "instructions" strings:
    $a = /\b(system prompt|your (initial |original |hidden |internal |system )?(instructions|prompt|rules|guidelines)|available tools|list (of )?(your|all) tools|tool (definitions|schemas|descriptions)|which model are you|your configuration)\b/
  condition: any of them }
rule sources { meta: kind = "intent" view = "asked" topic = "source_code" strings:
    $a = /\b(source code|source files?|codebase|git (log|clone|diff|history|repo(sitory)?)|repositor(y|ies)|commit history|\.git\/|config(uration)? files?|dockerfile|docker compose|stack trace|your code)\b/
  condition: any of them }
rule network { meta: kind = "intent" view = "asked" topic = "network" strings:
    $a = /\b(nmap|port ?scan|open ports?|scan (the )?(network|ports?|subnet|hosts?)|network (topology|interfaces?|map|layout|shares?)|dns records?|firewall rules?|vpn (config|configuration|access)|internal (hosts?|network|ips?|services?|endpoints?|urls?)|traceroute|arp table|localhost:[oieast0-9]{2,5}|subnet)\b/
  condition: any of them }
rule messaging { meta: kind = "intent" view = "asked" topic = "messaging" strings:
    $a = /\b(e ?mail|mail|forward|send|message|text|post|tweet|dm|slack)\b[^.?!]{0,24}\b(everyone|everybody|all (staff|employees|customers|users|contacts)|(the )?(press|competitors?|journalists?)|external (address|recipients?|party)|my (personal|private|gmail) (e ?mail|address|account))\b/
  condition: any of them }
