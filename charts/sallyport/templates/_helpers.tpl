{{/* Stem of the object names, at most 53 characters so that suffixes fit into 63. */}}
{{- define "sallyport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sallyport.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that selectors use: they never change during the life of a release. */}}
{{- define "sallyport.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sallyport.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sallyport.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sallyport.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sallyport
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sallyport.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sallyport.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sallyport.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sallyport.configMapName" -}}
{{- default (printf "%s-config" (include "sallyport.fullname" .)) .Values.existingConfigMap -}}
{{- end -}}

{{- define "sallyport.policyConfigMapName" -}}
{{- default (printf "%s-policies" (include "sallyport.fullname" .)) .Values.existingPolicyConfigMap -}}
{{- end -}}

{{/* Port number of an address such as 0.0.0.0:8080 or [::]:8080. Arguments: key, address. */}}
{{- define "sallyport.port" -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" (toString .address)) -}}
{{- if or (not $port) (lt (atoi $port) 1) (gt (atoi $port) 65535) -}}
{{- fail (printf "config.%s.address: %q does not end in a port of 1 to 65535, such as 0.0.0.0:8080" .key (toString .address)) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* Host of an address that only the pod itself can reach. */}}
{{- define "sallyport.refuseLoopback" -}}
{{- if regexMatch "^(localhost|127\\.[0-9.]+|\\[::1\\]):" (toString .address) -}}
{{- fail (printf "config.%s.address: %q is loopback, and %s reach the pod from outside; say 0.0.0.0:%s" .key .address .who (include "sallyport.port" .)) -}}
{{- end -}}
{{- end -}}

{{/* JSON object LISTENER: port, of config.listeners. */}}
{{- define "sallyport.listenerPorts" -}}
{{- $ports := dict -}}
{{- $seen := dict (include "sallyport.adminPort" .) "admin" -}}
{{- range $i, $l := .Values.config.listeners -}}
{{- if not $l.name -}}
{{- fail (printf "config.listeners[%d].name: the listener needs a name, so that service.ports can say it" $i) -}}
{{- end -}}
{{- $key := printf "listeners[%d]" $i -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$" $l.name) -}}
{{- fail (printf "config.%s.name: %q names a port of the pod too: at most 15 lower-case letters, digits and dashes, a letter first" $key $l.name) -}}
{{- end -}}
{{- include "sallyport.refuseLoopback" (dict "key" $key "address" $l.address "who" "clients") -}}
{{- $port := include "sallyport.port" (dict "key" $key "address" $l.address) -}}
{{- if hasKey $seen $port -}}
{{- fail (printf "config.%s.address: port %s is taken by %s; the admin port and each listener need their own" $key $port (get $seen $port)) -}}
{{- end -}}
{{- $_ := set $seen $port (printf "listener %q" $l.name) -}}
{{- $_ := set $ports $l.name $port -}}
{{- end -}}
{{- if not $ports -}}
{{- fail "config.listeners: the gateway needs at least one listener" -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{- define "sallyport.adminPort" -}}
{{- $address := dig "admin" "address" "" .Values.config -}}
{{- if not $address -}}
{{- fail "config.admin.address: probes, metrics and `helm test` need it; say 0.0.0.0:9901" -}}
{{- end -}}
{{- include "sallyport.refuseLoopback" (dict "key" "admin" "address" $address "who" "the kubelet's probes") -}}
{{- include "sallyport.port" (dict "key" "admin" "address" $address) -}}
{{- end -}}

{{/* Whether the policy directory is mounted: not when policies come from policy.opa alone. */}}
{{- define "sallyport.mountsPolicies" -}}
{{- $policy := default dict .Values.config.policy -}}
{{- $given := or .Values.policies .Values.existingPolicyConfigMap -}}
{{- if and $given $policy.opa (not $policy.paths) -}}
{{- fail "policies: config.policy.opa loads policies itself, so these would never be read; drop either, or name /etc/sallyport/policies in config.policy.paths" -}}
{{- end -}}
{{- if or $given (not $policy.opa) -}}true{{- end -}}
{{- end -}}

{{/* sallyport.yaml: the values as they are, the policy directory, the certificate. */}}
{{- define "sallyport.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $policy := default dict $config.policy -}}
{{- if not (or $policy.paths $policy.opa) -}}
{{- $_ := set $policy "paths" (list "/etc/sallyport/policies") -}}
{{- end -}}
{{- $_ := set $config "policy" $policy -}}
{{- if and .Values.tls.existingSecret .Values.tls.listener -}}
{{- $files := dict "cert_file" "/etc/sallyport/tls/tls.crt" "key_file" "/etc/sallyport/tls/tls.key" -}}
{{- range $config.listeners -}}
{{- if eq .name $.Values.tls.listener -}}
{{- $_ := set . "tls" (mergeOverwrite (deepCopy $files) (default dict .tls)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* GOMEMLIMIT in bytes from limits.memory. The downward API could give the whole limit
only, and a Go heap that fills it leaves nothing for stacks, code and the kernel's buffers. */}}
{{- define "sallyport.goMemoryLimit" -}}
{{- $percent := int .Values.goMemoryLimitPercent -}}
{{- $limit := dig "limits" "memory" "" .Values.resources | toString -}}
{{- if and $percent $limit -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $limit -}}
{{- $unit := trimPrefix $number $limit -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "resources.limits.memory: %q is not a quantity such as 512Mi" $limit) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) 0.01 $percent | int64 -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 1m30s; 0 of what is none, which the gateway itself reports. */}}
{{- define "sallyport.seconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" (toString .) -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = addf $sum (mulf (float64 (trimSuffix $unit .)) (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Problems that a schema cannot state. */}}
{{- define "sallyport.validate" -}}
{{- $ports := include "sallyport.listenerPorts" . | fromJson -}}
{{- $names := keys $ports | sortAlpha | join ", " -}}
{{- range $name, $port := .Values.service.ports -}}
{{- if not (hasKey $ports $name) -}}
{{- fail (printf "service.ports.%s: config.listeners has no listener of this name (it has: %s); drop it with `%s: null`" $name $names $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.listener (not (hasKey $ports .Values.tls.listener)) -}}
{{- fail (printf "tls.listener: config.listeners has no listener %q (it has: %s)" .Values.tls.listener $names) -}}
{{- end -}}
{{- if not (or .Values.existingConfigMap .Values.config.routes) -}}
{{- fail "config.routes: name at least one route and its upstream; the chart's README has an example" -}}
{{- end -}}
{{- $shutdown := default dict .Values.config.shutdown -}}
{{- $needs := addf (include "sallyport.seconds" (default "0s" $shutdown.delay)) (include "sallyport.seconds" (default "30s" $shutdown.timeout)) -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $needs -}}
{{- fail (printf "terminationGracePeriodSeconds: %v is not more than the %v s of config.shutdown (delay and timeout): the kubelet would kill requests that the gateway still serves" .Values.terminationGracePeriodSeconds $needs) -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (ne (toString .minAvailable) "") (ne (toString .maxUnavailable) "") -}}
{{- fail "podDisruptionBudget: say minAvailable or maxUnavailable, not both" -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas: %d is more than maxReplicas %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage .metrics) -}}
{{- fail "autoscaling: say at least one of targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage and metrics" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.adminService.enabled) -}}
{{- fail "serviceMonitor.enabled: it scrapes the admin Service; set adminService.enabled" -}}
{{- end -}}
{{- if and .Values.tests.enabled (not .Values.adminService.enabled) (not .Values.tests.target) -}}
{{- fail "tests.target: `helm test` asks the admin Service, which is off; name a URL that must answer 200, or set tests.enabled to false" -}}
{{- end -}}
{{- end -}}

{{/* Labels of the pod of `helm test`: never those of the selectors, or the Service would send it traffic. */}}
{{- define "sallyport.testLabels" -}}
app.kubernetes.io/name: {{ include "sallyport.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sallyport.testTarget" -}}
{{- default (printf "http://%s-admin.%s.svc:%v/readyz" (include "sallyport.fullname" .) .Release.Namespace .Values.adminService.port) .Values.tests.target -}}
{{- end -}}
