// Keys and tokens by their published formats. Looked at is the text as received, its escapes undone.
// Each has a fixed prefix or an unmistakable shape; what has none is found by the name that stands before it (secrets.py).

// No match is without one of these near it: only there the rules look.
rule _near_secrets { meta: view = "text" near = "AKIA|ASIA|ABIA|ACCA|AIza|ya29\\.|GOCSPX-|AccountKey=|SharedAccessKey=|[78]Q~|[?&]sig=|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|imt|sa|c)[-_]|GR1348941|ATBB|ATATT3|xox[abeoprs]-|xapp-|hooks\\.slack|api/webhooks|[MNO][A-Za-z0-9_-]{23,27}\\.[A-Za-z0-9_-]{6}\\.|[0-9]:AA|webhookb2|\\b(?:SK|AC)[0-9a-f]{8}|SG\\.|\\bkey-[0-9a-f]|-us[0-9]|xkeysib-|[sr]k_(?:live|test)|whsec_|sq0|EAAA|access_token\\$|shp(?:at|ca|pa|ss)_|AQE[a-z]|npm_|pypi-AgE|rubygems_|dckr_|hv[sbr]\\.|atlasv1|do[opr]_v1|HRKU-|fo1_|dapi[0-9a-f]|pscale_|sbp_|sb_secret|\\bsk-|\\bhf_|api_org_|gsk_|r8_|xai-|pplx-|lsv2_|CCI(?:PAT|PRJ)_|bk(?:ua|at|ct)_|sq[upa]_|NR(?:AK|JS|II|AA)-|sntry|lin_(?:api|oauth)|ntn_|PMAK-|figd_|\\bpat[A-Za-z0-9]{14}\\.|\\bsl\\.|\\bdp\\.|AGE-SECRET|PRIVATE KEY|PuTTY-User|eyJ|://[^\\s/:@]{0,64}:[^\\s/:@]{3}|(?i:password=|pwd=|authorization)" condition: false }

rule aws_access_key_id { meta: kind = "secret" strings: $a = /\b(AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b/ condition: $a }
rule gcp_api_key { meta: kind = "secret" strings: $a = /\bAIza[A-Za-z0-9_-]{35}/ condition: $a }
rule google_oauth_token { meta: kind = "secret" strings: $a = /\bya29\.[A-Za-z0-9_-]{20,400}/ condition: $a }
rule google_client_secret { meta: kind = "secret" strings: $a = /\bGOCSPX-[A-Za-z0-9_-]{28}/ condition: $a }
rule azure_storage_key { meta: kind = "secret" strings: $a = /\b(AccountKey|SharedAccessKey)=[A-Za-z0-9+\/]{40,100}={0,2}/ condition: $a }
rule azure_client_secret { meta: kind = "secret" strings: $a = /\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}/ condition: $a }
rule azure_sas { meta: kind = "secret" strings: $a = /[?&]sig=[A-Za-z0-9%+\/]{40,100}/ condition: $a }
rule github_token { meta: kind = "secret" strings: $a = /\bgh[pousr]_[A-Za-z0-9]{36,255}\b/ condition: $a }
rule github_fine_grained_token { meta: kind = "secret" strings: $a = /\bgithub_pat_[A-Za-z0-9_]{22,255}/ condition: $a }
rule gitlab_token { meta: kind = "secret" strings: $a = /\bgl(pat|dt|rt|ptt|cbt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,64}/ condition: $a }
rule gitlab_runner_token { meta: kind = "secret" strings: $a = /\bGR1348941[A-Za-z0-9_-]{20}/ condition: $a }
rule bitbucket_token { meta: kind = "secret" strings: $a = /\bATBB[A-Za-z0-9]{28,40}\b/ condition: $a }
rule atlassian_token { meta: kind = "secret" strings: $a = /\bATATT3[A-Za-z0-9_=-]{60,300}/ condition: $a }
rule slack_token { meta: kind = "secret" strings: $a = /\bxox[abeoprs]-[A-Za-z0-9-]{10,250}/ condition: $a }
rule slack_app_token { meta: kind = "secret" strings: $a = /\bxapp-[0-9]-[A-Z0-9]{8,14}-[0-9]{8,14}-[a-f0-9]{32,128}/ condition: $a }
rule slack_webhook { meta: kind = "secret" strings: $a = /hooks\.slack\.com\/(services|workflows|triggers)\/[A-Za-z0-9+\/]{20,100}/ condition: $a }
rule discord_webhook { meta: kind = "secret" strings: $a = /discord(app)?\.com\/api\/webhooks\/[0-9]{16,20}\/[A-Za-z0-9_-]{60,72}/ condition: $a }
rule discord_bot_token { meta: kind = "secret" strings: $a = /\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}\b/ condition: $a }
rule telegram_bot_token { meta: kind = "secret" strings: $a = /\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b/ condition: $a }
rule teams_webhook { meta: kind = "secret" strings: $a = /\.webhook\.office\.com\/webhookb2\/[A-Za-z0-9@\/-]{60,200}/ condition: $a }
rule twilio_key { meta: kind = "secret" strings: $a = /\b(SK|AC)[0-9a-f]{32}\b/ condition: $a }
rule sendgrid_key { meta: kind = "secret" strings: $a = /\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}/ condition: $a }
rule mailgun_key { meta: kind = "secret" strings: $a = /\bkey-[0-9a-f]{32}\b/ condition: $a }
rule mailchimp_key { meta: kind = "secret" strings: $a = /\b[0-9a-f]{32}-us[0-9]{1,2}\b/ condition: $a }
rule brevo_key { meta: kind = "secret" strings: $a = /\bxkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16}/ condition: $a }
rule stripe_key { meta: kind = "secret" strings: $a = /\b(sk|rk)_(live|test)_[A-Za-z0-9]{16,250}\b/ condition: $a }
rule stripe_webhook_secret { meta: kind = "secret" strings: $a = /\bwhsec_[A-Za-z0-9+\/=]{24,64}/ condition: $a }
rule square_token { meta: kind = "secret" strings: $a = /\b(sq0(atp|csp|idp)-[A-Za-z0-9_-]{22,43}|EAAA[A-Za-z0-9_-]{60})/ condition: $a }
rule braintree_token { meta: kind = "secret" strings: $a = /access_token\$(production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}/ condition: $a }
rule shopify_token { meta: kind = "secret" strings: $a = /\bshp(at|ca|pa|ss)_[a-fA-F0-9]{32}/ condition: $a }
rule adyen_key { meta: kind = "secret" strings: $a = /\bAQE[a-z][A-Za-z0-9+\/]{60,200}={0,2}-[A-Za-z0-9+\/=]{30,60}-[^\s"']{10,30}/ condition: $a }
rule npm_token { meta: kind = "secret" strings: $a = /\bnpm_[A-Za-z0-9]{36}\b/ condition: $a }
rule pypi_token { meta: kind = "secret" strings: $a = /\bpypi-AgE[A-Za-z0-9_-]{50,300}/ condition: $a }
rule rubygems_key { meta: kind = "secret" strings: $a = /\brubygems_[0-9a-f]{48}\b/ condition: $a }
rule docker_token { meta: kind = "secret" strings: $a = /\bdckr_(pat|oat)_[A-Za-z0-9_-]{20,50}/ condition: $a }
rule vault_token { meta: kind = "secret" strings: $a = /\bhv[sbr]\.[A-Za-z0-9_-]{24,200}/ condition: $a }
rule terraform_token { meta: kind = "secret" strings: $a = /\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{50,80}/ condition: $a }
rule digitalocean_token { meta: kind = "secret" strings: $a = /\bdo[opr]_v1_[a-f0-9]{64}\b/ condition: $a }
rule heroku_key { meta: kind = "secret" strings: $a = /\bHRKU-[A-Za-z0-9_-]{30,70}/ condition: $a }
rule flyio_token { meta: kind = "secret" strings: $a = /\bfo1_[A-Za-z0-9_-]{43}\b/ condition: $a }
rule databricks_token { meta: kind = "secret" strings: $a = /\bdapi[0-9a-f]{32}(-[0-9])?\b/ condition: $a }
rule planetscale_token { meta: kind = "secret" strings: $a = /\bpscale_(tkn|pw|oauth)_[A-Za-z0-9_.-]{32,64}/ condition: $a }
rule supabase_token { meta: kind = "secret" strings: $a = /\bsb(p_[a-f0-9]{40}|_secret_[A-Za-z0-9_-]{20,60})\b/ condition: $a }
rule openai_key { meta: kind = "secret" strings: $a = /\bsk-(proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,200}/ $b = /\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}/ condition: any of them }
rule anthropic_key { meta: kind = "secret" strings: $a = /\bsk-ant-[a-z]{2,6}[0-9]{2}-[A-Za-z0-9_-]{20,200}/ condition: $a }
rule openrouter_key { meta: kind = "secret" strings: $a = /\bsk-or-v1-[a-f0-9]{64}\b/ condition: $a }
rule huggingface_token { meta: kind = "secret" strings: $a = /\b(hf|api_org)_[A-Za-z]{34}\b/ condition: $a }
rule groq_key { meta: kind = "secret" strings: $a = /\bgsk_[A-Za-z0-9]{40,60}\b/ condition: $a }
rule replicate_token { meta: kind = "secret" strings: $a = /\br8_[A-Za-z0-9]{37}\b/ condition: $a }
rule xai_key { meta: kind = "secret" strings: $a = /\bxai-[A-Za-z0-9]{70,90}\b/ condition: $a }
rule perplexity_key { meta: kind = "secret" strings: $a = /\bpplx-[A-Za-z0-9]{40,64}\b/ condition: $a }
rule langsmith_key { meta: kind = "secret" strings: $a = /\blsv2_(pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}\b/ condition: $a }
rule circleci_token { meta: kind = "secret" strings: $a = /\bCCI(PAT|PRJ)_[A-Za-z0-9]{20,30}_[a-f0-9]{40}/ condition: $a }
rule buildkite_token { meta: kind = "secret" strings: $a = /\bbk(ua|at|ct)_[A-Za-z0-9]{32,64}/ condition: $a }
rule sonar_token { meta: kind = "secret" strings: $a = /\bsq[upa]_[a-f0-9]{40}\b/ condition: $a }
rule new_relic_key { meta: kind = "secret" strings: $a = /\bNR(AK|JS|II|AA)-[A-Za-z0-9]{27,40}/ condition: $a }
rule grafana_token { meta: kind = "secret" strings: $a = /\bgl(sa|c)_[A-Za-z0-9+\/_-]{32,200}/ condition: $a }
rule sentry_token { meta: kind = "secret" strings: $a = /\bsntry(s|u)_[A-Za-z0-9+\/=_-]{40,300}/ condition: $a }
rule linear_key { meta: kind = "secret" strings: $a = /\blin_(api|oauth)_[A-Za-z0-9]{40,64}/ condition: $a }
rule notion_token { meta: kind = "secret" strings: $a = /\bntn_[A-Za-z0-9]{43,50}\b/ condition: $a }
rule postman_key { meta: kind = "secret" strings: $a = /\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}\b/ condition: $a }
rule figma_token { meta: kind = "secret" strings: $a = /\bfigd_[A-Za-z0-9_-]{36,60}/ condition: $a }
rule airtable_token { meta: kind = "secret" strings: $a = /\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}\b/ condition: $a }
rule dropbox_token { meta: kind = "secret" strings: $a = /\bsl\.(u\.)?[A-Za-z0-9_-]{120,200}/ condition: $a }
rule doppler_token { meta: kind = "secret" strings: $a = /\bdp\.(pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,60}/ condition: $a }
rule age_secret_key { meta: kind = "secret" strings: $a = /\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b/ condition: $a }
rule private_key {
  meta: kind = "secret"
  strings:
    $a = /-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY( BLOCK)?-----[A-Za-z0-9+\/=\s:,.\\-]{0,16000}(-----END [A-Z0-9 ]{0,24}PRIVATE KEY( BLOCK)?-----)?/
    $b = /PuTTY-User-Key-File-[23]:[ -~\s]{0,8000}Private-MAC:/
  condition: any of them
}
rule json_web_token { meta: kind = "secret" strings: $a = /\beyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{16,1500}/ condition: $a }
rule connection_string {
  meta: kind = "secret"
  strings:
    $a = /\b(postgres(ql)?|mysql|mariadb|mongodb(\+srv)?|redis(s)?|amqps?|mssql|sqlserver|oracle|clickhouse|ldaps?|s?ftp|ssh|smtps?|https?)(\+[a-z0-9]{1,16})?:\/\/[^\s\/:@"'<>{}$]{0,64}:[^\s\/:@"'<>{}$]{3,128}@[A-Za-z0-9.\[-]{2,255}/
    $b = /(Server|Data Source|Host)=[^;\n"]{1,200};[^\n"]{0,200}(Password|Pwd)=[^;\s"]{4,128}/ nocase
  condition: any of them
}
rule authorization_header { meta: kind = "secret" strings: $a = /\bAuthorization["']?\s{0,3}[:=]\s{0,3}["']?(Basic|Bearer|Token)\s{1,3}[A-Za-z0-9+\/_.=~-]{16,2000}/ nocase condition: $a }
