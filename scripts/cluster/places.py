"""The items of the swarm of ``make cluster``: sixty places."""

from __future__ import annotations

_NAMES = """
Accra Algiers Amman Ankara Apia Asmara Astana Athens Baku Bangkok Beirut Belgrade Berlin Bern Bogota Brasilia
Bratislava Brussels Bucharest Budapest Cairo Canberra Caracas Copenhagen Dakar Damascus Dhaka Doha Dublin Freetown
Gaborone Hanoi Harare Havana Helsinki Jakarta Kabul Kampala Khartoum Kigali Kyiv Lima Lisbon Ljubljana Lome London
Luanda Lusaka Madrid Managua Manila Maputo Minsk Monrovia Nairobi Nicosia Oslo Ottawa Paris Rome
"""

PLACES = tuple(_NAMES.split())
