// The same in other languages: to override instructions, to hide something from the user, to ask for the prompt.
// Folded text: accents are gone from Latin letters.

// No match is without one of these, a part of each pattern, letter by letter: only around them the rules look.
rule _near_languages {
  meta:
    view = "folded"
    apart = true
    near_00 = "\\b(instruccion(es)?|ordenes|reglas|indicaciones|directrices|normas|mensajes? (anterior|previo)|todo lo (anterior|que)|prompt|lo anterior|contexto)\\b"
    near_01 = "\\b(instructions?|consignes?|regles?|directives?|ordres?|messages? precedents?|tout ce qui (precede|a ete)|prompt|contexte|ce qui precede)\\b"
    near_02 = "\\b(ignorier(e|t|en)?|vergiss|vergesst|vergessen sie|missacht(e|et|en)?|verwirf|verwerfen|ubergeh(e|en)?|umgeh(e|en)?|befolge (nicht|keine)|beachte (nicht|keine)|halte dich nicht|setze? .{0,20}ausser kraft)\\b"
    near_03 = "\\b(ignora(re|te)?|dimentica(re|te)?|trascura(re|te)?|scarta(re|te)?|non (seguire|considerare|tenere conto)|tralascia(re)?|annulla(re)?|disattendi|disubbidisci)\\b"
    near_04 = "\\b(instruc(ao|oes)|regras|ordens|diretrizes|orientac(ao|oes)|mensage(m|ns) anterior(es)?|tudo (o que|acima|que)|prompt|contexto|o que foi dito)\\b"
    near_05 = "\\b(negeer|vergeet|sla over|sla .{0,20} over|omzeil|volg .{0,20}niet|houd je niet aan|verwerp|schrap)\\b"
    near_06 = "\\b(zignoruj(cie)?|ignoruj(cie)?|zapomnij(cie)?|pomin(cie)?|odrzuc(cie)?|nie (stosuj|przestrzegaj|zwracaj uwagi)|obejdz|uniewaznij)\\b"
    near_07 = "(talimat|komut|kural|yonerge|emir|istem|mesaj)"
    near_08 = "\\b(ignorera|glom|bortse fran|strunta i|folj inte|ignorer|glem|se bort fra|folg ikke)\\b"
    near_09 = "(игнорируй|проигнорируй|игнорировать|забудь|забудьте|забыть|отбрось|отбросьте|не следуй|не следуйте|не обращай|пренебреги|отмени|не выполняй|нарушь|обойди)"
    near_10 = "(ігноруй|проігноруй|забудь|забудьте|відкинь|не дотримуйся|не виконуй|знехтуй|скасуй)"
    near_11 = "\\b(abaikan|lupakan|hiraukan|jangan (ikuti|patuhi)|kesampingkan|batalkan)\\b"
    near_12 = "(huong dan|chi thi|chi dan|quy tac|lenh|yeu cau|tin nhan|truoc do)"
    near_13 = "\\b(ignoruj(te)?|zapomen(te)?|neber(te)? .{0,12}v potaz|prehlizej(te)?|nedodrzuj(te)?|zrus(te)?)\\b"
    near_14 = "\\b(ignora|ignorati|uita|uitati|nu (urma|tine cont|respecta)|anuleaza)\\b"
    near_15 = "(αγνοησ|αγνόησ|ξέχασ|ξεχασ|παράβλεψ|παραβλεψ|μην ακολουθ|παράκαμψ)"
    near_16 = "(hagyd figyelmen kivul|felejtsd el|ne vedd figyelembe|mellozd|ne kovesd)"
    near_17 = "\\b(unohda|jata huomiotta|ala (noudata|valita)|ohita|sivuuta)\\b"
    near_18 = "(忽略|忽视|无视|忘记|忘掉|不要理会|不要遵循|不要遵守|抛弃|丢弃|覆盖|跳过|绕过|取消|無視|忽視|忘記)"
    near_19 = "(指示|命令|ルール|規則|プロンプト|制約|設定|指令|ガイドライン|内容|会話)"
    near_20 = "(지시|명령|규칙|프롬프트|지침|설정|제약|안내|내용|대화)"
    near_21 = "(تجاهل|انس|انسى|اهمل|أهمل|تجاوز|لا تتبع|تغاض|ألغ|الغ)"
    near_22 = "(دستور|دستورالعمل|قوانین|قواعد|پیام|دستورات)"
    near_23 = "(התעלם|התעלמי|התעלמו|שכח|שכחי|תשכח|אל תציית|בטל)"
    near_24 = "(निर्देश|आदेश|नियम|संदेश|प्रॉम्प्ट|हिदायत)"
    near_25 = "(เพิกเฉย|ละเว้น|ลืม|ไม่ต้องสนใจ|อย่าทำตาม|ข้าม)"
    near_26 = "\\b(no (se lo )?(digas|menciones|informes|reveles|cuentes|avises|muestres|comentes|diga|mencione|informe|revele|notifiques)|sin (decir(le|selo)?|informar|avisar|que (lo sepa|se entere)|mencionar(lo)?|notificar))\\b"
    near_27 = "\\b(ne (le )?(dis|dites|mentionne[zr]?|revele[zr]?|informe[zr]?|montre[zr]?|previen[st]|signale[zr]?|parle[zr]?|prevenez)( pas| jamais| rien)?|sans (le dire|en informer|informer|prevenir|avertir|mentionner|en parler))\\b"
    near_28 = "\\b(nicht|nichts|davon|niemals|nie|nicht mit|zu informieren|zu sagen|bescheid|mitzuteilen|zu fragen|wissen)\\b"
    near_29 = "\\b(non (dire|dirlo|menzionare|rivelare|informare|mostrare|avvisare|comunicare|parlarne)|senza (dirlo|informare|avvisare|menzionare|dire nulla|che))\\b"
    near_30 = "\\b(nao (diga|conte|mencione|revele|informe|mostre|avise|comente|fale)|sem (dizer|informar|avisar|mencionar|contar|que))\\b"
    near_31 = "\\b(vertel|zeg|meld|noem|informeer|toon|waarschuw|zonder)\\b"
    near_32 = "\\b(nie (mow|wspominaj|informuj|ujawniaj|pokazuj|powiadamiaj)|bez (informowania|wiedzy|powiadamiania))\\b"
    near_33 = "(не (говори|сообщай|упоминай|показывай|рассказывай|информируй|раскрывай|предупреждай|уведомляй)|без ведома|втаине|скрой|скрыть|тайно|втайне)"
    near_34 = "(soyleme|bahsetme|bildirme|haber verme|gosterme|belli etme|fark ettirme)"
    near_35 = "(不要|别|不可|切勿|请勿|無需|无需|不得|不能)(告诉|告知|通知|提及|提到|透露|让|讓|显示|向|跟|告訴)"
    near_36 = "(ユーザ|利用者|顧客|人間|誰)"
    near_37 = "(사용자|고객|누구|운영자)"
    near_38 = "(لا تخبر|لا تذكر|لا تبلغ|دون إخبار|دون علم|لا تكشف|بدون علم|لا تعلم)"
    near_39 = "(उपयोगकर्ता|यूज़र|यूजर|ग्राहक|किसी)"
    near_40 = "\\b(jangan (beri tahu|beritahu|katakan|sebutkan|ungkapkan|tunjukkan)|tanpa (memberi tahu|memberitahu|sepengetahuan))\\b"
    near_41 = "\\b(muestra|revela|repite|imprime|dime|escribe|ensena|comparte)(me|la|lo|s)?\\b"
    near_42 = "\\b(montre|affiche|revele|repete|donne|ecris|imprime|partage)(z|r)?( moi)?\\b"
    near_43 = "\\b(system ?prompt|system ?anweisung(en)?|deine (anweisungen|instruktionen|regeln|vorgaben)|ursprunglichen? (anweisungen|prompt)|versteckten anweisungen)\\b"
    near_44 = "(покажи|раскрой|повтори|выведи|напиши|скажи)"
    near_45 = "(显示|告诉我|输出|重复|打印|泄露|透露|复述|给我|列出)"
    near_46 = "(システムプロンプト|初期指示|内部指示|隠された指示|システムメッセージ)"
  condition: false
}

rule override_languages { meta: kind = "injection" view = "folded" strings:
    $es = /\b(ignora|ignore|ignorar|ignoren|olvida|olvide|olvidar|descarta|descarte|desobedece|omite|omita|anula|pasa por alto|no (sigas|obedezcas|hagas caso))\b[^.?!]{0,40}\b(instruccion(es)?|ordenes|reglas|indicaciones|directrices|normas|mensajes? (anterior|previo)|todo lo (anterior|que)|prompt|lo anterior|contexto)\b/
    $fr = /\b(ignore[zr]?|oublie[zr]?|ne (tiens|tenez) (pas|aucun) compte|fais abstraction|faites abstraction|outrepasse[zr]?|contourne[zr]?|abandonne[zr]?|n obei[st]|ne (suis|suivez) (pas|plus))\b[^.?!]{0,40}\b(instructions?|consignes?|regles?|directives?|ordres?|messages? precedents?|tout ce qui (precede|a ete)|prompt|contexte|ce qui precede)\b/
    $de = /\b(ignorier(e|t|en)?|vergiss|vergesst|vergessen sie|missacht(e|et|en)?|verwirf|verwerfen|ubergeh(e|en)?|umgeh(e|en)?|befolge (nicht|keine)|beachte (nicht|keine)|halte dich nicht|setze? .{0,20}ausser kraft)\b[^.?!]{0,48}\b(anweisung(en)?|instruktion(en)?|befehle?|regeln|vorgaben|richtlinien|anordnung(en)?|alles (bisherige|vorherige|obige|davor|zuvor)|prompt|kontext|auftrag|auftrage)\b/
    $it = /\b(ignora(re|te)?|dimentica(re|te)?|trascura(re|te)?|scarta(re|te)?|non (seguire|considerare|tenere conto)|tralascia(re)?|annulla(re)?|disattendi|disubbidisci)\b[^.?!]{0,40}\b(istruzion[ei]|regol[ae]|ordin[ei]|direttiv[ae]|indicazion[ei]|linee guida|messagg(io|i) precedent[ei]|tutto (cio|quello)|prompt|quanto sopra|contesto)\b/
    $pt = /\b(ignore|ignorar|ignora|esqueca|esquece|esquecer|desconsidere|desconsiderar|descarte|despreze|desobedeca|nao (siga|obedeca|considere)|anule)\b[^.?!]{0,40}\b(instruc(ao|oes)|regras|ordens|diretrizes|orientac(ao|oes)|mensage(m|ns) anterior(es)?|tudo (o que|acima|que)|prompt|contexto|o que foi dito)\b/
    $nl = /\b(negeer|vergeet|sla over|sla .{0,20} over|omzeil|volg .{0,20}niet|houd je niet aan|verwerp|schrap)\b[^.?!]{0,40}\b(instructies?|opdracht(en)?|regels|richtlijnen|aanwijzing(en)?|bevelen|alles (hierboven|ervoor|wat)|prompt|voorgaande|bovenstaande|context)\b/
    $pl = /\b(zignoruj(cie)?|ignoruj(cie)?|zapomnij(cie)?|pomin(cie)?|odrzuc(cie)?|nie (stosuj|przestrzegaj|zwracaj uwagi)|obejdz|uniewaznij)\b[^.?!]{0,40}(instrukcj|polece|zasad|regul|wytyczn|wczesniejsz|poprzedni|prompt|kontekst|rozkaz)/
    $tr = /(onceki|yukaridaki|tum|butun|mevcut|eski|sistem|daha onceki)[^.?!]{0,30}(talimat|komut|kural|yonerge|emir|istem|mesaj)[^.?!]{0,30}(yok say|unut|gormezden gel|goz ardi|dikkate alma|gecersiz|uyma|iptal)/
    $sv = /\b(ignorera|glom|bortse fran|strunta i|folj inte|ignorer|glem|se bort fra|folg ikke)\b[^.?!]{0,40}\b(instruktion(er)?(na)?|instruks(er|jon(er|ene)?)?(ne)?|regler(na|ne)?|anvisning(ar|er)(na|ne)?|order|direktiv|allt (ovan|tidigare)|alt (over|tidligere)|tidigare|tidligere|prompten?|kontexten?)\b/
    $ru = /(игнорируй|проигнорируй|игнорировать|забудь|забудьте|забыть|отбрось|отбросьте|не следуй|не следуйте|не обращай|пренебреги|отмени|не выполняй|нарушь|обойди)[^.?!]{0,80}(инструкци|указани|правил|предыдущ|команд|распоряжени|промпт|директив|контекст|сказанн|ограничени)/
    $uk = /(ігноруй|проігноруй|забудь|забудьте|відкинь|не дотримуйся|не виконуй|знехтуй|скасуй)[^.?!]{0,80}(інструкці|вказівк|правил|попередн|команд|промпт|наказ|обмежен)/
    $id = /\b(abaikan|lupakan|hiraukan|jangan (ikuti|patuhi)|kesampingkan|batalkan)\b[^.?!]{0,40}\b(instruksi|perintah|aturan|arahan|pesan|panduan|petunjuk|prompt|semua yang|konteks)\b/
    $vi = /(bo qua|quen|phot lo|khong lam theo|huy bo)[^.?!]{0,40}(huong dan|chi thi|chi dan|quy tac|lenh|yeu cau|tin nhan|truoc do)/
    $cs = /\b(ignoruj(te)?|zapomen(te)?|neber(te)? .{0,12}v potaz|prehlizej(te)?|nedodrzuj(te)?|zrus(te)?)\b[^.?!]{0,40}(instrukc|pokyn|pravid|prikaz|predchoz|predesl|prompt|zadan)/
    $ro = /\b(ignora|ignorati|uita|uitati|nu (urma|tine cont|respecta)|anuleaza)\b[^.?!]{0,40}(instructiuni|instructiunile|reguli|regulile|ordinele|comenzi|anterioare|precedente|promptul|indicatii)/
    $el = /(αγνοησ|αγνόησ|ξέχασ|ξεχασ|παράβλεψ|παραβλεψ|μην ακολουθ|παράκαμψ)[^.?!]{0,80}(οδηγί|οδηγι|εντολ|κανόν|κανον|προηγού|προηγου|κατευθ)/
    $hu = /(hagyd figyelmen kivul|felejtsd el|ne vedd figyelembe|mellozd|ne kovesd)[^.?!]{0,50}(utasitas|szabaly|parancs|korabbi|elozo|iranyelv|prompt)/
    $fi = /\b(unohda|jata huomiotta|ala (noudata|valita)|ohita|sivuuta)\b[^.?!]{0,40}(ohje|saanno|kasky|aiem|edelli|kehot|maaray)/
    $zh = /(忽略|忽视|无视|忘记|忘掉|不要理会|不要遵循|不要遵守|抛弃|丢弃|覆盖|跳过|绕过|取消|無視|忽視|忘記)[^.!?]{0,36}(指令|指示|说明|规则|提示|命令|要求|限制|设定|系统|內容|内容|對話|对话|規則|約束|约束|准则)/
    $ja = /(指示|命令|ルール|規則|プロンプト|制約|設定|指令|ガイドライン|内容|会話)[^.!?]{0,36}(無視|忘れ|破棄|従わな|従うな|無効|取り消|上書き|守らな)/
    $ko = /(지시|명령|규칙|프롬프트|지침|설정|제약|안내|내용|대화)[^.?!]{0,48}(무시|잊어|잊으|따르지|무효|취소|삭제하고|버리|어겨)/
    $ar = /(تجاهل|انس|انسى|اهمل|أهمل|تجاوز|لا تتبع|تغاض|ألغ|الغ)[^.!?]{0,80}(تعليمات|التعليمات|أوامر|الأوامر|اوامر|القواعد|قواعد|السابقة|التوجيهات|الإرشادات|المطالبة)/
    $fa = /(دستور|دستورالعمل|قوانین|قواعد|پیام|دستورات)[^.!?]{0,80}(نادیده|فراموش|کنار بگذار|لغو)/
    $he = /(התעלם|התעלמי|התעלמו|שכח|שכחי|תשכח|אל תציית|בטל)[^.?!]{0,80}(הוראות|ההוראות|הנחיות|ההנחיות|כללים|הכללים|פקודות|הקודמות)/
    $hi = /(निर्देश|आदेश|नियम|संदेश|प्रॉम्प्ट|हिदायत)[^.?!]{0,90}(अनदेखा|नज़रअंदाज़|नजरअंदाज|भूल|उपेक्षा|न मान|रद्द)/
    $th = /(เพิกเฉย|ละเว้น|ลืม|ไม่ต้องสนใจ|อย่าทำตาม|ข้าม)[^.?!]{0,90}(คำสั่ง|คำแนะนำ|กฎ|ข้อความ|พรอมต์|ก่อนหน้า)/
  condition: any of them }
rule concealment_languages { meta: kind = "injection" view = "folded" strings:
    $es = /\b(no (se lo )?(digas|menciones|informes|reveles|cuentes|avises|muestres|comentes|diga|mencione|informe|revele|notifiques)|sin (decir(le|selo)?|informar|avisar|que (lo sepa|se entere)|mencionar(lo)?|notificar))\b[^.?!]{0,30}\b(al? |el |la )?(usuarios?|cliente|nadie|persona|operador|humano|esto)\b/
    $fr = /\b(ne (le )?(dis|dites|mentionne[zr]?|revele[zr]?|informe[zr]?|montre[zr]?|previen[st]|signale[zr]?|parle[zr]?|prevenez)( pas| jamais| rien)?|sans (le dire|en informer|informer|prevenir|avertir|mentionner|en parler))\b[^.?!]{0,30}\b(utilisateur|l utilisateur|client|personne|a quiconque|operateur|humain)\b/
    $de = /\b(sag(e|en)?|erwahn(e|en)?|verrat(e|en)?|informier(e|en)?|zeig(e|en)?|teil(e|en)?|meld(e|en)?|warn(e|en)?|verschweig(e|en)?|verheimlich(e|en)?|erzahl(e|en)?|ohne)\b[^.?!]{0,40}\b(nutzer|benutzer|anwender|kunden?|niemand(em|en)?|bediener|menschen|user)\b[^.?!]{0,32}\b(nicht|nichts|davon|niemals|nie|nicht mit|zu informieren|zu sagen|bescheid|mitzuteilen|zu fragen|wissen)\b/
    $it = /\b(non (dire|dirlo|menzionare|rivelare|informare|mostrare|avvisare|comunicare|parlarne)|senza (dirlo|informare|avvisare|menzionare|dire nulla|che))\b[^.?!]{0,30}\b(utente|all utente|l utente|cliente|nessuno|operatore)\b/
    $pt = /\b(nao (diga|conte|mencione|revele|informe|mostre|avise|comente|fale)|sem (dizer|informar|avisar|mencionar|contar|que))\b[^.?!]{0,30}\b(usuario|utilizador|cliente|ninguem|operador|pessoa)\b/
    $nl = /\b(vertel|zeg|meld|noem|informeer|toon|waarschuw|zonder)\b[^.?!]{0,30}\b(gebruikers?|klant|niemand|operator|mens)\b[^.?!]{0,24}\b(niet|niets|nooit|te vertellen|te melden|te informeren|hierover|weten)\b/
    $pl = /\b(nie (mow|wspominaj|informuj|ujawniaj|pokazuj|powiadamiaj)|bez (informowania|wiedzy|powiadamiania))\b[^.?!]{0,30}(uzytkownik|klient|nikomu|operator)/
    $ru = /(не (говори|сообщай|упоминай|показывай|рассказывай|информируй|раскрывай|предупреждай|уведомляй)|без ведома|втаине|скрой|скрыть|тайно|втайне)[^.?!]{0,60}(пользовател|клиент|никому|оператор|человек)/
    $tr = /(kullanici|musteri|kimse|operator)[^.?!]{0,30}(soyleme|bahsetme|bildirme|haber verme|gosterme|belli etme|fark ettirme)/
    $zh = /(不要|别|不可|切勿|请勿|無需|无需|不得|不能)(告诉|告知|通知|提及|提到|透露|让|讓|显示|向|跟|告訴)[^.!?]{0,20}(用户|用戶|客户|任何人|人类|操作员|使用者)/
    $ja = /(ユーザー?|利用者|顧客|人間|誰)[^.!?]{0,20}(知らせ|伝え|言わ|言う|通知|気づか|明かさ|見せ|報告)[^.!?]{0,10}(ない|な|ず|せず)/
    $ko = /(사용자|고객|누구|운영자)[^.?!]{0,24}(말하지|알리지|언급하지|보여주지|모르게|공개하지|알려주지|들키지)/
    $ar = /(لا تخبر|لا تذكر|لا تبلغ|دون إخبار|دون علم|لا تكشف|بدون علم|لا تعلم)[^.!?]{0,60}(المستخدم|العميل|أحد|المشغل)/
    $hi = /(उपयोगकर्ता|यूज़र|यूजर|ग्राहक|किसी)[^.?!]{0,60}(मत बता|न बता|ना बता|सूचित न|उल्लेख न|जिक्र न|पता न)/
    $id = /\b(jangan (beri tahu|beritahu|katakan|sebutkan|ungkapkan|tunjukkan)|tanpa (memberi tahu|memberitahu|sepengetahuan))\b[^.?!]{0,30}\b(pengguna|pelanggan|siapa ?pun|operator)\b/
  condition: any of them }
rule prompt_leak_languages { meta: kind = "injection" view = "folded" strings:
    $es = /\b(muestra|revela|repite|imprime|dime|escribe|ensena|comparte)(me|la|lo|s)?\b[^.?!]{0,40}\b(prompt|instrucciones (iniciales|del sistema|ocultas|originales|internas)|mensaje del sistema|tus instrucciones)\b/
    $fr = /\b(montre|affiche|revele|repete|donne|ecris|imprime|partage)(z|r)?( moi)?\b[^.?!]{0,40}\b(prompt|instructions (initiales|systeme|cachees|d origine|internes)|message systeme|tes instructions|vos instructions)\b/
    $de = /\b(zeig(e|en)?|nenn(e|en)?|verrat(e|en)?|wiederhol(e|en)?|gib|gebt|druck(e|en)?|schreib(e|en)?)\b[^.?!]{0,40}\b(system ?prompt|system ?anweisung(en)?|deine (anweisungen|instruktionen|regeln|vorgaben)|ursprunglichen? (anweisungen|prompt)|versteckten anweisungen)\b/
    $ru = /(покажи|раскрой|повтори|выведи|напиши|скажи)[^.?!]{0,60}(системн(ый|ую|ые|ого) (промпт|инструкци|сообщени|запрос)|свои инструкции|твои инструкции|исходн(ые|ую) инструкци)/
    $zh = /(显示|告诉我|输出|重复|打印|泄露|透露|复述|给我|列出)[^.!?]{0,20}(系统提示|提示词|初始指令|系统指令|系统消息|隐藏指令|你的指令|上述内容)/
    $ja = /(システムプロンプト|初期指示|内部指示|隠された指示|システムメッセージ)[^.!?]{0,20}(表示|教え|見せ|出力|開示|繰り返)/
  condition: any of them }
