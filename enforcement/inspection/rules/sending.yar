// Orders to send data away, or to write it where a request takes it along. Folded text, as in injection.yar.

// No match is without one of these near it: only there the rules look.
rule _near_sending {
  meta:
    view = "folded"
    apart = true
    near_a = "\\b(?:to|at|via|through|using|with|into) (?:the |this |our |my |a |following |url |address |server |endpoint |webhook |e ?mail ){0,4}:? ?(?:https? ?://|www\\.|webhook|external (?:server|url|endpoint|address|site|api|service|host)|attacker|[0-9]{1,3}\\.[0-9])"
    near_b = "[a-z0-9. ](?:@|a)[a-z0-9]{1,40}\\.(?:com|net|org|io|dev|xyz|ru|cn|example|test|info|co|me|app|site)"
    near_c = "\\b(?:to|in|into|as|onto|at) (?:the |an? |this |your |its |end of the |end of |following ){0,3}(?:url|uri|link|image|query|address|markdown|img|subdomain|dns|path|get|request|hostname|file ?name|domain|header)"
    near_d = "(?:base ?6[4a]|hex|url) ?encode|\\b(?:request|call|query|lookup|ping|hit) (?:to|at|against)\\b"
    near_e = "\\b(?:render|display|show|include|insert|output|embed|add) (?:the following |this |an? |a )?(?:markdown )?(?:image|img|pixel|picture|tracking pixel|link)\\b"
  condition: false
}

rule send_out { meta: kind = "exfiltration" view = "folded" strings:
    $a = /\b(send|forward|post|upload|exfiltrate|transmit|submit|leak|email|mail|deliver|report|append|push|copy|relay|export|share|ship|dispatch|beacon)\b[^?!]{0,60}\b(contents?|conversation|chat( history| log)?|history|transcript|files?|secrets?|keys?|credentials?|passwords?|tokens?|env(ironment)?( variables| vars)?|system prompt|personal (data|information)|customer (data|list|records?)|session|cookies?|data|records?|database|memor(y|ies)|context|messages?|invoices?|documents?|private|confidential|results?|outputs?|summary|emails?)\b[^?!]{0,60}\b(to|at|via|through|using|with|into) (the |this |our |my |a |following |url |address |server |endpoint |webhook |e ?mail ){0,4}:? ?(https? ?:\/\/|www\.|webhook|[a-z0-9. ]{1,40}(@|a)[a-z0-9]{1,40}\.(com|net|org|io|dev|xyz|ru|cn|example|test|info|co|me|app|site)\b|external (server|url|endpoint|address|site|api|service|host)|attacker|\d{1,3}\.\d)/
    $b = /\b(append|add|include|embed|encode|put|attach|insert|place|concatenate|render|use)\b[^.?!]{0,48}\b(conversation|history|secrets?|keys?|credentials?|passwords?|tokens?|data|contents?|user (name|input|message|data|query)|e ?mail address|context|answers?|results?|environment|summary|session|variables?|files?)\b[^.?!]{0,40}\b(to|in|into|as|onto|at) (the |an? |this |your |its |end of the |end of |following ){0,3}(url|uri|links?|image( link| url| source| src)?|query( string| parameter| params?)?|address|markdown image|img( tag)?|query string|subdomain|dns|path|get request|request|hostname|file ?name|domain|header)\b/
    $c = /\b(base ?6[4a]|hex|url) ?encode\b[^.?!]{0,60}\b(and|then) (send|append|post|add|include|put|upload|submit|embed|place|attach|use|pass|forward)\b/
    $d = /\b(render|display|show|include|insert|output|embed|add) (the following |this |an? |a )?(markdown )?(image|img|pixel|picture|tracking pixel|link)\b[^?!]{0,60}\b(https? ?:\/\/|url|with the|containing the|query|parameter)\b[^?!]{0,60}\b(data|secrets?|history|conversation|summary|tokens?|user|base|encoded|content|info|message|email)\b/
    $e = /\b(send|post|make|issue|perform|fire|trigger) (a |an )?(http |https |get |post |put |web |dns |api )?(get |post |put )?(request|call|query|lookup|ping|hit) (to|at|against)\b[^?!]{0,60}\b(with|containing|including|carrying|and (include|append|attach))\b[^?!]{0,60}\b(data|secrets?|history|conversation|tokens?|credentials?|contents?|keys?|password|env|output|results?|body|payload)\b/
  condition: any of them }
