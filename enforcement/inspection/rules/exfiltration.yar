// Ways for data to leave: addresses that carry it, and collectors that strangers run. The text as received.

// No match is without one of these near it: only there the rules look.
rule _near_exfiltration { meta: view = "text" near = "(?i)webhook|requestbin|pipedream|beeceptor|hookbin|postb\\.in|requestcatcher|oast|burpcollab|interact\\.?sh|dnslog|ceye|canarytokens|ngrok|trycloudflare|loca\\.lt|serveo|localtunnel|transfer\\.sh|file\\.io|0x0\\.st|termbin|ix\\.io|pastebin|requestinspector|mockbin|curl|wget|\\|[\\s\\x0b]{0,3}(?:nc|ncat|socat|openssl)|ncat|\\bnc[\\s\\x0b]|dev/tcp|nslookup|\\b(?:dig|host|ping)\\b[^\\n]{0,80}(?:\\$\\(|`)|scp|rsync|[?&/=](?:\\{|\\$\\{|<|\\[|%7b)" condition: false }

rule collector_host { meta: kind = "exfiltration" strings:
    $a = /\b([a-z0-9-]{1,63}\.){0,4}(webhook\.site|requestbin\.(com|net)|pipedream\.net|beeceptor\.com|hookbin\.com|postb\.in|requestcatcher\.com|oast\.(pro|live|site|online|fun|me)|oastify\.com|burpcollaborator\.net|interact\.sh|interactsh\.com|dnslog\.cn|ceye\.io|canarytokens\.(com|org)|ngrok(-free)?\.(io|app|dev)|trycloudflare\.com|loca\.lt|serveo\.net|localtunnel\.me|transfer\.sh|file\.io|0x0\.st|termbin\.com|ix\.io|pastebin\.com\/api|requestinspector\.com|mockbin\.org|webhook-test\.com|typedwebhook\.tools)\b/ nocase
  condition: $a }
rule shell_upload { meta: kind = "exfiltration" strings:
    $a = /\bcurl\b[^\n|;]{0,200}\s(-d|--data(-binary|-raw|-urlencode)?|-F|--form|-T|--upload-file)[ =]["']?[^\s"']{0,60}(@|\$\(|`|\$\{?[A-Z])[^\n]{0,200}/ nocase
    $b = /\bwget\b[^\n|;]{0,200}--(post-file|post-data|body-file|body-data)[ =][^\n]{0,200}/ nocase
    $c = /\|\s{0,3}(curl|nc|ncat|socat|wget|openssl s_client)\s[^\n]{3,200}/
    $d = /\b(nc|ncat)\s{1,3}(-[a-z]{1,4}\s{1,3}){0,3}[a-z0-9.-]{3,100}\s{1,3}[0-9]{2,5}\s{0,3}<\s{0,3}[^\s]{1,100}/
    $e = /\/dev\/tcp\/[^\s]{3,100}/
    $f = /\b(nslookup|dig|host|ping)\b[^\n]{0,80}(\$\(|`)[^\n]{1,100}(\)|`)\.[a-z0-9.-]{3,80}/
    $g = /\b(scp|rsync)\s[^\n]{0,100}(\.ssh|\.aws|\.env|\/etc\/|id_rsa|credentials)[^\n]{0,60}\s[a-z0-9._-]{1,40}@?[a-z0-9.-]{1,60}:/ nocase
  condition: any of them }
rule template_in_address { meta: kind = "exfiltration" strings:
    $a = /https?:\/\/[^\s"'<>)\]]{3,200}[?&\/=](\{\{?|\$\{|<|\[|%7b)\s{0,2}[a-z_ .-]{0,30}(data|secret|token|key|password|passwd|context|history|conversation|chat|message|prompt|content|output|result|response|env|credential|session|cookie|summary|memory|base64|b64|encoded)[a-z_ .-]{0,30}(\}|>|\]|%7d)/ nocase
  condition: $a }
