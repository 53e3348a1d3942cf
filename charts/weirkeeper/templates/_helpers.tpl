{{- define "weirkeeper.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "weirkeeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "weirkeeper.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "weirkeeper.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What tells this release's gateways from all other pods. */}}
{{- define "weirkeeper.selector" -}}
app.kubernetes.io/name: {{ include "weirkeeper.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "weirkeeper.labels" -}}
{{ include "weirkeeper.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "weirkeeper.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The folder that remembers what was spent; nothing with `state: memory` and in Redis. */}}
{{- define "weirkeeper.folder" -}}
{{- $state := .Values.config.state -}}
{{- if kindIs "map" $state -}}{{ default "" $state.path }}{{- else if not $state -}}/var/lib/weirkeeper{{- end -}}
{{- end -}}

{{/* Whether replicas share their state. */}}
{{- define "weirkeeper.shared" -}}
{{- $state := .Values.config.state -}}
{{- if and (kindIs "map" $state) $state.redis -}}true{{- end -}}
{{- end -}}

{{/* The port of an address such as 0.0.0.0:8080 or [::]:8443. */}}
{{- define "weirkeeper.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* Whole seconds of a duration such as 1h30m; parts of a second count as one. */}}
{{- define "weirkeeper.seconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|d|h|m|s)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "ms" . -}}{{- $sum = add $sum (div (add $number 999) 1000) -}}
{{- else if hasSuffix "d" . -}}{{- $sum = add $sum (mul $number 86400) -}}
{{- else if hasSuffix "h" . -}}{{- $sum = add $sum (mul $number 3600) -}}
{{- else if hasSuffix "m" . -}}{{- $sum = add $sum (mul $number 60) -}}
{{- else -}}{{- $sum = add $sum $number -}}
{{- end -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* How long a pod may take to end: no call is cut that the gateway would have let go on. */}}
{{- define "weirkeeper.grace" -}}
{{- $limits := default dict .Values.config.limits -}}
{{- $notice := include "weirkeeper.seconds" (default "0s" $limits.drain_notice) | int -}}
{{- $drain := include "weirkeeper.seconds" (default "30s" $limits.drain) | int -}}
{{- add .Values.preStopSeconds $notice $drain 15 -}}
{{- end -}}

{{/* The gateway's configuration with what only the chart knows. */}}
{{- define "weirkeeper.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $folder := include "weirkeeper.folder" . -}}
{{- if and $folder (not $config.state) -}}{{- $_ := set $config "state" (dict "path" $folder) -}}{{- end -}}
{{- $name := printf "%s-admin" (include "weirkeeper.fullname" .) -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- $_ := set $config.admin "hosts" (concat (default list $config.admin.hosts) $hosts | uniq) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What of the configuration takes effect only after a restart: a change of it rolls the pods. */}}
{{- define "weirkeeper.fixed" -}}
{{- $c := .Values.config -}}
{{- $admin := default dict $c.admin -}}
{{- list $c.listeners $admin.address $c.limits $c.log $c.metrics $c.state $c.runtimes $c.principal_key | toJson | sha256sum -}}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "weirkeeper.checks" -}}
{{- $config := .Values.config -}}
{{- $admin := default dict $config.admin -}}
{{- $limits := default dict $config.limits -}}
{{- $upstream := default dict $config.upstream -}}
{{- if not $config.listeners -}}
{{- fail "\n\nconfig.listeners: there is none. Write [{address: \"0.0.0.0:8080\"}].\n" -}}
{{- end -}}
{{- range $config.listeners -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" .address -}}
{{- fail (printf "\n\nconfig.listeners: nobody outside the pod can reach %s. Write 0.0.0.0:%s.\n" .address (include "weirkeeper.port" .address)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" (default "127.0.0.1:9090" $admin.address) -}}
{{- fail "\n\nconfig.admin.address: the probes come from outside the pod. Write 0.0.0.0:9090.\n" -}}
{{- end -}}
{{- if not $admin.key_sha256 -}}
{{- fail "\n\nconfig.admin.key_sha256: missing. Run `weirkeeper key`, keep the key in a Secret, and write its digest here.\n" -}}
{{- end -}}
{{- $folder := include "weirkeeper.folder" . -}}
{{- if $folder -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- fail (printf "\n\nSeveral replicas cannot share the embedded state in %s: it belongs to one gateway alone.\nEither keep replicas: 1 and autoscaling.enabled: false, or have them share it in Redis:\nconfig.state: {redis: {url: {env: REDIS_URL}, ...}}, see profiles/high-availability.yaml.\nWith config.state: memory each replica would count for itself.\n" $folder) -}}
{{- end -}}
{{- if not (hasPrefix "/" $folder) -}}
{{- fail (printf "\n\nconfig.state.path: %s must begin with a slash: the volume is mounted there.\n" $folder) -}}
{{- end -}}
{{- end -}}
{{- if include "weirkeeper.shared" . -}}
{{- range $from := concat (list $config.state.redis.url) (default list $config.state.redis.keys) -}}
{{- if and (kindIs "map" $from) $from.env (not (hasKey $.Values.secretEnv $from.env)) -}}
{{- fail (printf "\n\nconfig.state.redis: no Secret gives the variable %s. Name one in secretEnv.\n" $from.env) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $drain := include "weirkeeper.seconds" (default "30s" $limits.drain) | int -}}
{{- $bounds := dict "upstream.first_byte" (default "2m" $upstream.first_byte) -}}
{{- range $family, $bound := default dict $upstream.total -}}{{- $_ := set $bounds (printf "upstream.total.%s" $family) $bound -}}{{- end -}}
{{- range $name, $bound := $bounds -}}
{{- if le $drain (include "weirkeeper.seconds" $bound | int) -}}
{{- fail (printf "\n\nconfig.limits.drain: %ds would cut calls that config.%s lets go on for %s. Make it longer.\n" $drain $name $bound) -}}
{{- end -}}
{{- end -}}
{{- $seen := mul (int .Values.probes.periodSeconds) (int .Values.probes.failureThreshold) | int -}}
{{- if le (include "weirkeeper.seconds" (default "0s" $limits.drain_notice) | int) $seen -}}
{{- fail (printf "\n\nconfig.limits.drain_notice: listeners would close before the readiness probe has failed, which takes %ds. Make it longer.\n" $seen) -}}
{{- end -}}
{{- if and (kindIs "map" $config.log) (kindIs "map" (default "stdout" $config.log.access)) -}}
{{- fail "\n\nconfig.log.access: the root file system is read-only. Write stdout, stderr or off.\n" -}}
{{- end -}}
{{- if .Values.serviceMonitor.enabled -}}
{{- if not .Values.serviceMonitor.keySecret.name -}}
{{- fail "\n\nserviceMonitor.keySecret.name: missing. /metrics needs the admin key: name the Secret that holds it.\n" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.operators) -}}
{{- fail "\n\nnetworkPolicy.operators: nobody may reach the admin port, Prometheus neither. Name its namespace.\n" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress.hosts: there is none.\n" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not (and .Values.httpRoute.parents .Values.httpRoute.hosts)) -}}
{{- fail "\n\nhttpRoute: parents and hosts must both be named.\n" -}}
{{- end -}}
{{- end -}}
