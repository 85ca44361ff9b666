// Injection by what another tool is to do: to send a copy, to change who receives. Folded text, as in injection.yar.

// No match is without one of these near it: only there the rules look.
rule _near_interference {
  meta:
    view = "folded"
    apart = true
    near_f = "also (?:send|add|incl|copy|cc|bcc|forward|call|append|set)|\\bbcc\\b|\\bcc\\b|blind copy|always (?:add|incl|send|set|copy|cc|bcc|change|use|append|forward|allow)|change the|replace the|redirect|reroute|divert|set the (?:rec|to|am|acc|dest)|modify the|instead (?:send|use|call)|silently|secretly|covertly|quietly|discreetly|surrept|in the background|stealth|behind the scenes|unobtrus|\\b(?:copy|forward) |(?:send|route|change|deliver) (?:all|every|any|each)|(?:chang|replac|modif|rewrit|alter|edit|swap|substitut|adjust)(?:e|ing|y|ying) |(?:implementation|code|behaviou?r|rules|instructions) (?:of|for) |\\bswap\\b|must (?:be|go|send|change|include|first|also)\\b"
  condition: false
}

rule tool_interference { meta: kind = "injection" view = "folded" strings:
    $a = /\b(when(ever)?|if|every time|each time|any time|once|as soon as)\b[^.?!]{0,24}\b(send|transfer|email|mail|write|payment|pay|search|read|list|create|post|message|call|invok|us)(s|es|ing|ed|e)?\b[^.?!]{0,60}\b(tools?|function|emails?|message|payment|file|transfer|server|user|assistant|available|present)\b[^.?!]{0,40}\b(also (send|add|include|copy|cc|bcc|forward|call|append|set)|bcc|always (add|include|send|set|copy|cc|bcc|change|use|append|forward)|change the (recipient|address|amount|account|url|destination)|replace the|redirect|must (be|go|send|change|include|first|also)|set the (recipient|to|amount|account|destination)|swap|modify the|instead (send|use|call)|silently|secretly)\b/
    $b = /\b(bcc|blind copy|cc|copy|forward) (this |it |all |every |each |them |everything |a copy |any |the )?( ?(e ?mails?|messages?|results?|outputs?|responses?|mails?|repl(y|ies)|of (all|every|each)))?[^.?!]{0,24}\bto [a-z0-9. ]{1,60}(a|@)[a-z0-9]{1,40}\.[a-z]{2,8}/
    $c = /\b(send|redirect|route|change|reroute|divert|deliver) (all|every|any|each)( of the| the| of)? (e ?mails?|messages?|payments?|transfers?|requests?|traffic|funds|invoices?|outputs?|results?|data|files?) (to|through|via)\b/
    $d = /\b(chang|replac|modif|rewrit|alter|edit|swap|substitut|adjust)(e|ing|y|ying) (the |any |all )?(recipient|payee|bank account|account number|iban|destination|wallet|to address|phone number|amount)s?\b[^.?!]{0,24}\b(to|with|by|before|into)\b/
    $e = /\b(the )?(implementation|code|behaviou?r|rules|instructions) (of|for) (the )?( ?\w{1,24}){1,3} (tool|server|function) (has|have) (changed|been (changed|updated|replaced|moved))\b/
  condition: any of them }
